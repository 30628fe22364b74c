-- How often one item was followed by another, later in the same session.
SELECT
    item_idx,
    next_item_idx,
    CAST(count(*) AS REAL) AS n_transitions
FROM (
    SELECT
        lag(item_idx)                              OVER following AS item_idx,
        item_idx                                                  AS next_item_idx,
        repeats(user_idx, session_id, session_no)  OVER following AS same_session,
        repeats(event_time)                        OVER following AS same_time
    FROM sessions
    WINDOW following AS (ORDER BY user_idx, session_id, session_no, event_time, item_idx)
)
WHERE same_session AND NOT same_time AND next_item_idx <> item_idx
GROUP BY item_idx, next_item_idx
ORDER BY item_idx, next_item_idx
