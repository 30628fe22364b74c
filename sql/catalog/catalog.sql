-- One row an item of the catalogue, in the order of its index. Of rows with the same id the first counts;
-- the others are rejected as duplicates.
SELECT
    item_ids.item_idx,
    item_ids.item_id,
    items.title,
    items.brand,
    items.category,
    items.price,
    items.created_at,
    nullif(btrim(items.lamplighter_text), '')           AS text,
    items.lamplighter_eligible                          AS eligible,
    CAST(items.lamplighter_boost AS REAL)               AS boost,
    CAST(items.lamplighter_pin AS SMALLINT UNSIGNED)    AS pin
FROM numbered_items AS items
JOIN item_ids ON items.item_id = item_ids.item_id
WHERE items.lamplighter_copy = 1
ORDER BY item_ids.item_idx
