-- The items users turned to within half an hour of a search and before their next one.
SELECT first_of(pair) AS query_idx, second_of(pair) AS item_idx, weight
FROM (
    SELECT pair(searched_idx, item_idx) AS pair, CAST(sum(weight_micro) / 1e6 AS REAL) AS weight
    FROM weighted_events
    WHERE item_idx IS NOT NULL AND searched_idx IS NOT NULL
    GROUP BY pair(searched_idx, item_idx)
)
ORDER BY pair
