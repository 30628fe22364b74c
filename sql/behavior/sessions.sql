-- Item events with the session they belong to: the shop's own, which may run beside each other, or,
-- where it has none, a number that goes up after half an hour of silence.
SELECT
    user_idx, item_idx, event_time, session_id,
    CAST(sum(starts) OVER (
        PARTITION BY user_idx, session_id
        ORDER BY event_time, event_type, item_idx
        ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    ) AS BIGINT) AS session_no
FROM (
    SELECT
        user_idx, item_idx, event_time, event_type, session_id,
        CASE
            WHEN session_id IS NULL
                 AND CAST(event_time AS BIGINT) - CAST(lag(event_time) OVER by_time AS BIGINT) > 1800e6
            THEN 1 ELSE 0
        END AS starts
    FROM weighted_events
    WHERE item_idx IS NOT NULL
    WINDOW by_time AS (PARTITION BY user_idx, session_id ORDER BY event_time, event_type, item_idx)
)
