-- The distinct items of each session, and when the user first turned to each in it.
SELECT
    CAST(dense_rank() OVER (ORDER BY user_idx, session_id, session_no) - 1 AS INT UNSIGNED) AS basket_idx,
    user_idx,
    item_idx,
    event_time
FROM (
    SELECT user_idx, session_id, session_no, item_idx, min(event_time) AS event_time
    FROM sessions
    GROUP BY user_idx, session_id, session_no, item_idx
)
ORDER BY basket_idx, item_idx
