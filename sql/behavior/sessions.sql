-- Item events with the number of the user's session they belong to. A session ends where the shop's
-- session id changes or, where it has none, after half an hour of silence.
SELECT
    user_idx, item_idx, event_time,
    CAST(sum(starts) OVER (
        PARTITION BY user_idx
        ORDER BY event_time, event_type, item_idx
        ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    ) AS BIGINT) AS session_no
FROM (
    SELECT
        user_idx, item_idx, event_time, event_type,
        CASE
            WHEN lag(event_time) OVER by_time IS NULL                            THEN 1
            WHEN session_id IS DISTINCT FROM lag(session_id) OVER by_time        THEN 1
            WHEN session_id IS NULL
                 AND CAST(event_time AS BIGINT) - CAST(lag(event_time) OVER by_time AS BIGINT) > 1800e6
                                                                                 THEN 1
            ELSE 0
        END AS starts
    FROM weighted_events
    WHERE item_idx IS NOT NULL
    WINDOW by_time AS (PARTITION BY user_idx ORDER BY event_time, event_type, item_idx)
)
