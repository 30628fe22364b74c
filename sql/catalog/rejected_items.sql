-- Catalogue rows that were not used: without an id, or with the id of an earlier row.
SELECT item_id, title, brand, category, price, created_at,
       CASE WHEN item_id IS NULL THEN 'null_item' ELSE 'duplicate' END AS reason
FROM numbered_items
WHERE lamplighter_copy > 1 OR item_id IS NULL
ORDER BY reason, item_id, title
