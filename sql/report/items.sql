-- Items that may be listed, with the places they have in users' lists.
SELECT
    catalog.item_id                                     AS item_id,
    CAST(coalesce(listed.n_places, 0) AS BIGINT)        AS n_places
FROM catalog
LEFT JOIN (
    SELECT item_id, count(*) AS n_places FROM recommendations GROUP BY item_id
) AS listed ON catalog.item_id = listed.item_id
WHERE catalog.eligible
ORDER BY catalog.item_id
