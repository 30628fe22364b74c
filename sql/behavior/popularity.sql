-- How much each segment's users interacted with each item.
SELECT
    users.segment,
    interactions.item_idx,
    CAST(count(*) AS INT UNSIGNED)                                              AS n_users,
    sum(CAST(round(interactions.weight * 1e6) AS BIGINT)) / 1e6                 AS weight
FROM interactions
JOIN users ON interactions.user_idx = users.user_idx
GROUP BY users.segment, interactions.item_idx
ORDER BY users.segment, interactions.item_idx
