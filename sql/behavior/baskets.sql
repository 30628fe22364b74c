-- The distinct items of each session, and when the user first turned to each in it.
SELECT
    CAST(count_so_far(begins) OVER by_session - 1 AS INT UNSIGNED) AS basket_idx,
    user_idx, item_idx, event_time
FROM (
    SELECT *, NOT repeats(session_no) OVER by_session AS begins
    FROM (
        SELECT session_no, min(user_idx) AS user_idx, item_idx, min(event_time) AS event_time
        FROM sessions
        GROUP BY session_no, item_idx
    )
    WINDOW by_session AS (ORDER BY session_no, item_idx)
)
WINDOW by_session AS (ORDER BY session_no, item_idx)
ORDER BY session_no, item_idx
