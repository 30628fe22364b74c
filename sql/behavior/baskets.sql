-- The distinct items of each session.
SELECT
    CAST(dense_rank() OVER (ORDER BY user_idx, session_id, session_no) - 1 AS INT UNSIGNED) AS basket_idx,
    item_idx
FROM (SELECT DISTINCT user_idx, session_id, session_no, item_idx FROM sessions)
ORDER BY basket_idx, item_idx
