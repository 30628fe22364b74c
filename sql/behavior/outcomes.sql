-- What became of the events, in one pass over them: how many count, by user and search, and how many do
-- not, by the reason. The next statements are made from it; duplicates are counted later.
SELECT
    reason, exclusion,
    CASE WHEN reason IS NULL AND exclusion IS NULL THEN user_id END             AS user_id,
    CASE WHEN reason IS NULL AND exclusion IS NULL THEN normalised_query END    AS query,
    count(*)                                                                    AS n_events
FROM checked_events
GROUP BY 1, 2, 3, 4
