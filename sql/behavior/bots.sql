-- Users who are programs: more events on some day than a person makes, or an id that says so.
SELECT user_id
FROM (
    SELECT user_id, CAST(event_time AS BIGINT) / 86400000000 AS day, count(*) AS n_events
    FROM without_consent RIGHT ANTI JOIN events ON without_consent.user_id = events.user_id
    WHERE user_id IS NOT NULL AND event_time <= $run_end
    GROUP BY user_id, CAST(event_time AS BIGINT) / 86400000000
)
GROUP BY user_id
HAVING max(n_events) > $max_events_per_day
    OR regexp_like(CAST(user_id AS VARCHAR), $bot_pattern)
