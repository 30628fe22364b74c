-- A given table of what users turned to, by index. Users and items that the events do not know are
-- numbered after those that they do, so that whoever missed them is charged for it.
SELECT DISTINCT
    CAST(CASE
        WHEN user_idx IS NULL
        THEN $n_users - 1 + dense_rank() OVER (PARTITION BY user_idx IS NULL ORDER BY user_id)
        ELSE user_idx
    END AS INT UNSIGNED) AS user_idx,
    CAST(CASE
        WHEN item_idx IS NULL
        THEN $n_items - 1 + dense_rank() OVER (PARTITION BY item_idx IS NULL ORDER BY item_id)
        ELSE item_idx
    END AS INT UNSIGNED) AS item_idx
FROM (
    SELECT given_rows.user_id, given_rows.item_id, user_ids.user_idx, item_ids.item_idx
    FROM user_ids RIGHT JOIN (
        item_ids RIGHT JOIN given_rows ON item_ids.item_id = given_rows.item_id
    ) ON user_ids.user_id = given_rows.user_id
    WHERE given_rows.user_id IS NOT NULL AND given_rows.item_id IS NOT NULL
)
ORDER BY user_idx, item_idx
