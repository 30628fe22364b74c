-- Implicit feedback: one row a user and item, the input of the factorisation.
SELECT
    user_idx,
    item_idx,
    CAST(sum(weight_micro) / 1e6 AS REAL)   AS weight,
    CAST(count(*) AS INT UNSIGNED)          AS n_events,
    max(strength)                           AS strength,
    max(event_time)                         AS last_time
FROM weighted_events
WHERE item_idx IS NOT NULL
GROUP BY user_idx, item_idx
ORDER BY user_idx, item_idx
