-- How often one item was followed by another, later in the same session.
SELECT
    previous_item_idx       AS item_idx,
    item_idx                AS next_item_idx,
    CAST(count(*) AS REAL)  AS n_transitions
FROM sessions
WHERE previous_item_idx IS NOT NULL
GROUP BY previous_item_idx, item_idx
ORDER BY previous_item_idx, item_idx
