-- What each user searched for, weighed and decayed like every event.
SELECT
    user_idx,
    query_idx,
    CAST(sum(weight_micro) / 1e6 AS REAL) AS weight
FROM weighted_events
WHERE query_idx IS NOT NULL
GROUP BY user_idx, query_idx
ORDER BY user_idx, query_idx
