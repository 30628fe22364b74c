-- Every event as it was read and judged, those of programs among the faulty ones. Both `reason` and `exclusion` are null
-- for an event that counts. Other reasons belong into `judged_events`, by which events are counted.
SELECT
    judged_events.* EXCEPT (reason),
    CASE
        WHEN bots.user_id IS NULL OR exclusion IS NOT DISTINCT FROM 'no_consent' THEN reason
        ELSE 'bot'
    END AS reason
FROM bots RIGHT JOIN judged_events ON bots.user_id = judged_events.user_id
