-- The distinct items of each session, and when the user first turned to each in it.
SELECT
    CAST(count(starts) OVER (
        ORDER BY user_idx, session_id, session_no, item_idx
        ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    ) - 1 AS INT UNSIGNED) AS basket_idx,
    user_idx,
    item_idx,
    event_time
FROM (
    SELECT
        user_idx, session_id, session_no, item_idx, event_time,
        CASE
            WHEN NOT repeats(user_idx, session_id, session_no) OVER (
                ORDER BY user_idx, session_id, session_no, item_idx
            )
            THEN 1
        END AS starts
    FROM (
        SELECT user_idx, session_id, session_no, item_idx, min(event_time) AS event_time
        FROM sessions
        GROUP BY user_idx, session_id, session_no, item_idx
    )
)
ORDER BY user_idx, session_id, session_no, item_idx
