-- Item events with the session they belong to: the shop's own, which may run beside each other, or,
-- where it has none, a number that goes up after half an hour of silence. It goes up from one user and
-- one session of the shop's to the next as well.
SELECT
    user_idx, item_idx, event_time, session_id,
    count(starts) OVER (
        ORDER BY user_idx, session_id, event_time, item_idx
        ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    ) AS session_no
FROM (
    SELECT
        user_idx, item_idx, event_time, session_id,
        CASE
            WHEN NOT repeats(user_idx, session_id) OVER by_time
            THEN 1
            WHEN session_id IS NULL
                 AND CAST(event_time AS BIGINT) - CAST(lag(event_time) OVER by_time AS BIGINT) > 1800e6
            THEN 1
        END AS starts
    FROM weighted_events
    WHERE item_idx IS NOT NULL
    WINDOW by_time AS (ORDER BY user_idx, session_id, event_time, item_idx)
)
