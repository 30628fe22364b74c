-- Items in the order of their ids; an item's position is its index in every later table.
-- `known_items` is the catalogue, or the items of the events where the job has no catalogue.
SELECT
    item_id,
    CAST(row_number() OVER (ORDER BY item_id) - 1 AS INT UNSIGNED) AS item_idx
FROM (SELECT DISTINCT item_id FROM known_items WHERE item_id IS NOT NULL)
ORDER BY item_id
