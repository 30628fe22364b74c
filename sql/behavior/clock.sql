-- The run's clock: the first and last event up to the run date, but for those of users who have not agreed, and
-- how many carry a time of day (equal rows of a table that only knows dates are repeats, not duplicates).
SELECT
    count(*)                                                                AS n_events,
    min(event_time)                                                         AS first_time,
    max(event_time)                                                         AS last_time,
    count(*) FILTER (WHERE CAST(event_time AS BIGINT) % 86400000000 <> 0)   AS n_timed
FROM without_consent RIGHT ANTI JOIN events ON without_consent.user_id = events.user_id
WHERE event_time <= $run_end
