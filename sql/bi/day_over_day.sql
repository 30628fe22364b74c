-- What has changed from run to run, of all runs that are kept: lists, rows, items and the backtest.
SELECT
    lists.run_id,
    lists.date,
    lists.n_users,
    lists.n_users - lag(lists.n_users) OVER by_run      AS more_users,
    lists.n_items,
    lists.n_items - lag(lists.n_items) OVER by_run      AS more_items,
    lists.n_rows,
    round(metrics.ndcg, 4)                              AS ndcg,
    round(metrics.ndcg - lag(metrics.ndcg) OVER by_run, 4)  AS more_ndcg
FROM (
    SELECT
        run_id, date,
        count(*)                    AS n_rows,
        count(DISTINCT user_id)     AS n_users,
        count(DISTINCT item_id)     AS n_items
    FROM all_recommendations
    GROUP BY run_id, date
) AS lists
LEFT JOIN (
    SELECT run_id, max(value) AS ndcg
    FROM all_metrics
    WHERE system = 'fused' AND metric = 'ndcg' AND k = 10 AND slice = 'all'
    GROUP BY run_id
) AS metrics ON metrics.run_id = lists.run_id
WINDOW by_run AS (ORDER BY lists.date, lists.run_id)
ORDER BY lists.date, lists.run_id
