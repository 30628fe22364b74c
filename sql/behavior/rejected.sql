-- Every rejected event as it was read, with its reason. Where the outcomes tell of none that is rejected
-- (`any_rejected`), the events are not read once more for it.
SELECT
    user_id, item_id, event_type, event_time, query, quantity, price, session_id, reason
FROM checked_events
WHERE $any_rejected AND reason IS NOT NULL
UNION ALL
SELECT
    user_ids.user_id, item_ids.item_id, copies.event_type, copies.event_time, query_ids.query,
    copies.quantity, copies.price, copies.session_id, 'duplicate' AS reason
FROM query_ids RIGHT JOIN (
    item_ids RIGHT JOIN (
        user_ids JOIN numbered_events AS copies ON user_ids.user_idx = copies.user_idx
    ) ON item_ids.item_idx = copies.item_idx
) ON query_ids.query_idx = copies.query_idx
WHERE copies.copy > $copies_kept
ORDER BY reason, event_time, user_id, item_id, event_type, query, quantity, price, session_id
