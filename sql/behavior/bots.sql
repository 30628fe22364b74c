-- Users who are programs: an id that says so, or more events on some day than a person makes, up to the run date.
-- Days are counted of those alone who have as many events in all.
WITH candidates AS (
    SELECT user_id, sum(n_events) AS n_events
    FROM tallies
    WHERE user_id IS NOT NULL
        AND (exclusion IS DISTINCT FROM 'later') AND (reason IS DISTINCT FROM 'null_time')
    GROUP BY user_id
)
SELECT user_id FROM candidates WHERE regexp_like(CAST(user_id AS VARCHAR), $bot_pattern)
UNION
SELECT user_id
FROM (
    SELECT events.user_id, count(*) AS n_events
    FROM (
        SELECT user_id FROM candidates WHERE n_events > $max_events_per_day
    ) AS busy JOIN events ON busy.user_id = events.user_id
    WHERE events.event_time <= $run_end
    GROUP BY events.user_id, CAST(events.event_time AS BIGINT) / 86400000000
)
WHERE n_events > $max_events_per_day
