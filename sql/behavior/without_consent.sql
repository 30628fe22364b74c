-- Users with events who have not agreed, as far as the users' table says. Their events are excluded and
-- counted, and nothing else is made of them.
SELECT DISTINCT events.user_id
FROM consenting RIGHT ANTI JOIN events ON consenting.user_id = events.user_id
WHERE events.user_id IS NOT NULL
