-- Distinct searches: lower case, trimmed, inner white space folded to one space.
SELECT
    query,
    CAST(row_number() OVER (ORDER BY query) - 1 AS INT UNSIGNED) AS query_idx
FROM (
    SELECT DISTINCT query FROM outcomes WHERE query IS NOT NULL
)
ORDER BY query
