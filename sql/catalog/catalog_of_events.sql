-- The catalogue of a job that has none: the items of the events, all eligible, without text.
SELECT
    item_idx,
    item_id,
    CAST(NULL AS VARCHAR)                       AS title,
    CAST(NULL AS VARCHAR)                       AS brand,
    CAST(NULL AS VARCHAR)                       AS category,
    CAST(NULL AS DOUBLE)                        AS price,
    CAST(NULL AS TIMESTAMP)                     AS created_at,
    CAST(NULL AS VARCHAR)                       AS text,
    TRUE                                        AS eligible,
    CAST(0.0 AS REAL)                           AS boost,
    CAST(NULL AS SMALLINT UNSIGNED)             AS pin
FROM item_ids
ORDER BY item_idx
