-- One row a user: activity, and the segment by it. Replace this statement to segment otherwise:
-- every distinct `segment` gets its own popularity, weights and metrics.
-- Distinct items are counted where users and items are rows already: a set of them cannot leave memory.
SELECT
    activity.user_idx,
    n_events,
    coalesce(n_items, 0) AS n_items,
    n_purchases, n_searches, first_time, last_time,
    CASE
        WHEN coalesce(n_items, 0) = 0   THEN 'new'
        WHEN n_items < 5                THEN 'light'
        WHEN n_items < 20               THEN 'regular'
        ELSE 'heavy'
    END AS segment
FROM (
    SELECT user_idx, count(*) AS n_items FROM interactions GROUP BY user_idx
) AS items RIGHT JOIN (
    SELECT
        user_idx,
        count(*)                                            AS n_events,
        count(*) FILTER (WHERE event_type = 'purchase')     AS n_purchases,
        count(*) FILTER (WHERE event_type = 'search')       AS n_searches,
        min(event_time)                                     AS first_time,
        max(event_time)                                     AS last_time
    FROM weighted_events
    GROUP BY user_idx
) AS activity ON items.user_idx = activity.user_idx
ORDER BY activity.user_idx
