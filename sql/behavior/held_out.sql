-- What users turned to between a window's end and the next: the truth that lists are compared with.
SELECT DISTINCT user_idx, item_idx
FROM numbered_events
WHERE copy <= $copies_kept AND item_idx IS NOT NULL AND event_time >= $cut AND event_time < $until
ORDER BY user_idx, item_idx
