-- Rows of the users' table that stand for nobody, and those that stand for somebody once more.
SELECT
    count(*) - count(user_id)                   AS n_unnamed,
    count(user_id) - count(DISTINCT user_id)    AS n_repeated
FROM user_attributes
