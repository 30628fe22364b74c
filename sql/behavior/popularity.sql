-- How much each segment's users interacted with each item.
SELECT
    users.segment,
    interactions.item_idx,
    CAST(count(*) AS INT UNSIGNED)                                              AS n_users,
    sum(CAST(round(interactions.weight * 1e6) AS BIGINT)) / 1e6                 AS weight
FROM users
JOIN interactions ON users.user_idx = interactions.user_idx
GROUP BY users.segment, interactions.item_idx
ORDER BY users.segment, interactions.item_idx
