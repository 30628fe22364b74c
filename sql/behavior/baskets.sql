-- The distinct items of each session, and when the user first turned to each in it.
SELECT
    CAST(count_so_far(begins) OVER (ORDER BY pair) - 1 AS INT UNSIGNED) AS basket_idx,
    user_idx, second_of(pair) AS item_idx, event_time
FROM (
    SELECT *, NOT repeats(first_of(pair)) OVER (ORDER BY pair) AS begins
    FROM (
        SELECT pair(session_no, item_idx) AS pair, min(user_idx) AS user_idx, min(event_time) AS event_time
        FROM sessions
        GROUP BY pair(session_no, item_idx)
    )
)
ORDER BY pair
