-- Events that count, by index instead of id, in the order of users and time. `copy` is 1 for the
-- first of rows that are equal in every column and 2 for those after it, which can then be rejected
-- as duplicates. `repeats` is whether all columns are those of the row before, as every `lag` of them
-- would tell; here as elsewhere windows order by what others partition by, which takes a fifth of the time.
SELECT
    user_idx, event_time, event_type, item_idx, query_idx, quantity, price, session_id,
    CASE
        WHEN repeats(user_idx, event_time, event_type, item_idx, query_idx, quantity, price, session_id) OVER (
            ORDER BY user_idx, event_time, event_type, item_idx, query_idx, quantity, price, session_id
        )
        THEN 2 ELSE 1
    END AS copy
FROM (
    SELECT
        user_ids.user_idx,
        checked_events.event_time,
        checked_events.known_type AS event_type,
        checked_events.item_idx,
        query_ids.query_idx,
        checked_events.quantity,
        checked_events.price,
        checked_events.session_id
    FROM query_ids RIGHT JOIN (
        user_ids JOIN checked_events ON user_ids.user_id = checked_events.user_id
    ) ON query_ids.query = checked_events.normalised_query
    WHERE checked_events.reason IS NULL AND checked_events.exclusion IS NULL
)
ORDER BY user_idx, event_time, event_type, item_idx, query_idx, quantity, price, session_id
