-- The events counted, in one pass over them, by what was wrong with them, by user and by search. The next statements
-- are made from it; duplicates are counted later. Of who has not agreed nothing is kept but how many events there are.
SELECT
    reason, exclusion,
    CASE WHEN exclusion IS DISTINCT FROM 'no_consent' THEN user_id END          AS user_id,
    CASE WHEN reason IS NULL AND exclusion IS NULL THEN normalised_query END    AS query,
    count(*)                                                                    AS n_events
FROM judged_events
GROUP BY 1, 2, 3, 4
