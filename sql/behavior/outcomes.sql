-- What became of the events: how many count, by user and search, and how many do not, by the reason.
SELECT
    CASE WHEN bots.user_id IS NULL THEN reason ELSE 'bot' END   AS reason,
    exclusion, tallies.user_id,
    CASE WHEN bots.user_id IS NULL THEN query END               AS query,
    n_events
FROM bots RIGHT JOIN tallies ON bots.user_id = tallies.user_id
