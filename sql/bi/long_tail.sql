-- Who sees the long tail: by segment, the share of rows that show an item outside the tenth of items listed most.
WITH listed AS (
    SELECT item_id, ntile(10) OVER (ORDER BY count(*) DESC, item_id) AS tenth
    FROM recommendations
    GROUP BY item_id
)
SELECT
    profiles.segment,
    count(DISTINCT lists.user_id)                                                       AS n_users,
    round(avg(CASE WHEN listed.tenth > 1 THEN 1.0 ELSE 0.0 END), 3)                     AS share_of_tail,
    round(avg(CASE WHEN listed.tenth > 1 AND lists.rank <= 10 THEN 1.0
                   WHEN lists.rank <= 10 THEN 0.0 END), 3)                              AS share_of_tail_at_10
FROM recommendations AS lists
JOIN listed ON listed.item_id = lists.item_id
JOIN user_profiles AS profiles ON profiles.user_id = lists.user_id
GROUP BY profiles.segment
ORDER BY profiles.segment
