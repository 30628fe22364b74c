-- Everybody who has a list.
SELECT user_id FROM recommendations WHERE rank = 1
