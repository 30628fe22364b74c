-- Implicit feedback: one row a user and item, the input of the factorisation. Here as elsewhere a `pair` is two indices in
-- one number, by which rows group and sort faster than by two columns.
SELECT
    first_of(pair)      AS user_idx,
    second_of(pair)     AS item_idx,
    weight, n_events, strength, last_time
FROM (
    SELECT
        pair(user_idx, item_idx)                AS pair,
        CAST(sum(weight_micro) / 1e6 AS REAL)   AS weight,
        CAST(count(*) AS INT UNSIGNED)          AS n_events,
        max(strength)                           AS strength,
        max(event_time)                         AS last_time
    FROM weighted_events
    WHERE item_idx IS NOT NULL
    GROUP BY pair(user_idx, item_idx)
)
ORDER BY pair
