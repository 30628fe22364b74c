-- The items users turned to within half an hour of a search and before their next one.
SELECT
    query_idx,
    item_idx,
    CAST(sum(weight_micro) / 1e6 AS REAL) AS weight
FROM (
    SELECT
        item_idx, event_time, weight_micro,
        latest(query_idx) OVER so_far AS query_idx,
        latest(CASE WHEN query_idx IS NOT NULL THEN event_time END) OVER so_far AS asked_at
    FROM weighted_events
    WINDOW so_far AS (
        PARTITION BY user_idx
        ORDER BY event_time, event_type DESC, item_idx, query_idx
    )
)
WHERE item_idx IS NOT NULL AND query_idx IS NOT NULL
  AND CAST(event_time AS BIGINT) - CAST(asked_at AS BIGINT) <= 1800e6
GROUP BY query_idx, item_idx
ORDER BY query_idx, item_idx
