-- The items users turned to within half an hour of a search and before their next one.
SELECT
    searched_idx AS query_idx,
    item_idx,
    CAST(sum(weight_micro) / 1e6 AS REAL) AS weight
FROM weighted_events
WHERE item_idx IS NOT NULL AND searched_idx IS NOT NULL
GROUP BY searched_idx, item_idx
ORDER BY searched_idx, item_idx
