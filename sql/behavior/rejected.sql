-- Every rejected event as it was read, with its reason.
SELECT
    user_id, item_id, event_type, event_time, query, quantity, price, session_id, reason
FROM checked_events
WHERE reason IS NOT NULL
UNION ALL
SELECT
    user_ids.user_id, item_ids.item_id, copies.event_type, copies.event_time, query_ids.query,
    copies.quantity, copies.price, copies.session_id, 'duplicate' AS reason
FROM numbered_events AS copies
JOIN user_ids       ON copies.user_idx = user_ids.user_idx
LEFT JOIN item_ids  ON copies.item_idx = item_ids.item_idx
LEFT JOIN query_ids ON copies.query_idx = query_ids.query_idx
WHERE copies.copy > $copies_kept
ORDER BY reason, event_time, user_id, item_id, event_type
