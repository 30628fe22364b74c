-- Users with an event that counts, in the order of their ids; the position is the user's index.
SELECT
    user_id,
    CAST(row_number() OVER (ORDER BY user_id) - 1 AS INT UNSIGNED) AS user_idx
FROM (
    SELECT DISTINCT user_id FROM outcomes WHERE reason IS NULL AND exclusion IS NULL
)
ORDER BY user_id
