-- How many events count by day (UTC) and type, from a moment on: what the gate compares with other nights.
SELECT
    CAST(event_time AS BIGINT) / 86400000000    AS day,
    CAST(event_type AS VARCHAR)                 AS event_type,
    count(*)                                    AS n_events
FROM numbered_events
WHERE copy <= $copies_kept AND event_time >= $since
GROUP BY CAST(event_time AS BIGINT) / 86400000000, CAST(event_type AS VARCHAR)
ORDER BY day, event_type
