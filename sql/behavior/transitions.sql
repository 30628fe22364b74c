-- How often one item was followed by another, later in the same session.
SELECT
    item_idx,
    next_item_idx,
    CAST(count(*) AS REAL) AS n_transitions
FROM (
    SELECT
        item_idx, event_time,
        lead(item_idx)   OVER following AS next_item_idx,
        lead(event_time) OVER following AS next_time
    FROM sessions
    WINDOW following AS (PARTITION BY user_idx, session_id, session_no ORDER BY event_time, item_idx)
)
WHERE next_item_idx <> item_idx AND next_time > event_time
GROUP BY item_idx, next_item_idx
ORDER BY item_idx, next_item_idx
