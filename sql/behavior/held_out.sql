-- What users turned to after the cut: the truth that an evaluation compares lists with.
SELECT DISTINCT user_idx, item_idx
FROM numbered_events
WHERE copy <= $copies_kept AND item_idx IS NOT NULL AND event_time >= $cut
ORDER BY user_idx, item_idx
