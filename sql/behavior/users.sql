-- One row a user: activity, and the segment by it. Replace this statement to segment otherwise:
-- every distinct `segment` gets its own popularity, weights and metrics.
-- Events are counted by user and item first: sums can leave memory on the way, sets of distinct items cannot.
SELECT
    user_idx,
    n_events, n_items, n_purchases, n_searches, first_time, last_time,
    CASE
        WHEN n_items = 0  THEN 'new'
        WHEN n_items < 5  THEN 'light'
        WHEN n_items < 20 THEN 'regular'
        ELSE 'heavy'
    END AS segment
FROM (
    SELECT
        user_idx,
        coalesce(sum(n_events), 0)      AS n_events,
        count(item_idx)                 AS n_items,
        coalesce(sum(n_purchases), 0)   AS n_purchases,
        coalesce(sum(n_searches), 0)    AS n_searches,
        min(first_time)                 AS first_time,
        max(last_time)                  AS last_time
    FROM (
        SELECT
            user_idx, item_idx,
            count(*)                                            AS n_events,
            count(*) FILTER (WHERE event_type = 'purchase')     AS n_purchases,
            count(*) FILTER (WHERE event_type = 'search')       AS n_searches,
            min(event_time)                                     AS first_time,
            max(event_time)                                     AS last_time
        FROM weighted_events
        GROUP BY user_idx, item_idx
    )
    GROUP BY user_idx
)
ORDER BY user_idx
