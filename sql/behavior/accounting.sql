-- How many events were read, by what became of them; duplicates are counted later.
SELECT reason, CASE WHEN reason IS NULL THEN exclusion END AS exclusion, count(*) AS n_events
FROM checked_events
GROUP BY 1, 2
ORDER BY 1, 2
