-- Users of the users' table without an event that counts; they get the popular list where the job
-- says `include_cold`.
SELECT DISTINCT user_attributes.user_id
FROM user_attributes
LEFT ANTI JOIN user_ids ON user_ids.user_id = user_attributes.user_id
WHERE user_attributes.user_id IS NOT NULL
ORDER BY user_id
