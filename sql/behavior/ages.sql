-- How old a window's events are at its end, in whole days: what an open half-life is taken from.
SELECT
    (CAST($until AS BIGINT) - CAST(event_time AS BIGINT)) / 86400000000     AS age_days,
    count(*)                                                                AS n_events
FROM numbered_events
WHERE copy <= $copies_kept AND event_time < $until
GROUP BY age_days
ORDER BY age_days
