-- How often one item was followed by another, later in the same session.
SELECT first_of(pair) AS item_idx, second_of(pair) AS next_item_idx, n_transitions
FROM (
    SELECT pair(previous_item_idx, item_idx) AS pair, CAST(count(*) AS REAL) AS n_transitions
    FROM sessions
    WHERE previous_item_idx IS NOT NULL
    GROUP BY pair(previous_item_idx, item_idx)
)
ORDER BY pair
