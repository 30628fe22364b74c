-- One row an item of the catalogue, in the order of its index. Of rows with the same id one that may be
-- listed counts, and of those the first by title; the others are rejected as duplicates.
-- `described_items` is the items input with `item_text` (the text that is embedded) and `may_be_listed`
-- (the job's rule), `boost` (what it adds to the score) and `pin` (the rank it has in every list) beside
-- its columns.
SELECT
    item_ids.item_idx,
    item_ids.item_id,
    items.title,
    items.brand,
    items.category,
    items.price,
    items.created_at,
    nullif(btrim(items.item_text), '')          AS text,
    coalesce(items.may_be_listed, FALSE)        AS eligible,
    CAST(coalesce(items.boost, 0.0) AS REAL)    AS boost,
    CAST(items.pin AS SMALLINT UNSIGNED)        AS pin
FROM (
    SELECT
        *,
        row_number() OVER (
            PARTITION BY item_id
            ORDER BY may_be_listed DESC, title, item_text, price, brand, category, created_at, description, tags
        ) AS copy
    FROM described_items
) AS items
JOIN item_ids ON items.item_id = item_ids.item_id
WHERE items.copy = 1
ORDER BY item_ids.item_idx
