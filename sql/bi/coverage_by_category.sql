-- How much of each top category is listed at all, and how often: what never gets into a list is not sold by one.
SELECT
    coalesce(btrim(split_part(catalog.category, '>', 1)), 'none')                       AS category,
    count(*)                                                                            AS n_items,
    count(listed.item_id)                                                               AS n_listed,
    round(count(listed.item_id) / CAST(count(*) AS DOUBLE), 3)                          AS share_listed,
    coalesce(sum(listed.n_rows), 0)                                                     AS n_rows
FROM catalog
LEFT JOIN (
    SELECT item_id, count(*) AS n_rows FROM recommendations GROUP BY item_id
) AS listed ON listed.item_id = catalog.item_id
WHERE catalog.eligible
GROUP BY 1
ORDER BY n_rows DESC, category
