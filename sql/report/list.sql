-- The beginning of one user's list, with titles.
SELECT
    CAST(listed.rank AS BIGINT)             AS place,
    CAST(listed.item_id AS VARCHAR)         AS item,
    coalesce(catalog.title, '')             AS title,
    CAST(listed.score AS DOUBLE)            AS score,
    coalesce(listed.source, '')             AS strongest,
    coalesce(listed.reason, '')             AS why
FROM one_list AS listed
LEFT JOIN catalog ON listed.item_id = catalog.item_id
WHERE listed.rank <= $rows
ORDER BY place
