-- How many events were read, by what became of them.
SELECT reason, CASE WHEN reason IS NULL THEN exclusion END AS exclusion, CAST(sum(n_events) AS BIGINT) AS n_events
FROM outcomes
GROUP BY 1, 2
ORDER BY 1, 2
