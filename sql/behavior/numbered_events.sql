-- Events that count, by index instead of id, in the order of users and time. `copy` is 1 for the
-- first of rows that are equal in every column and 2 for those after it, which can then be rejected
-- as duplicates.
SELECT
    user_idx, event_time, event_type, item_idx, query_idx, quantity, price, session_id,
    CASE
        WHEN event_time = lag(event_time) OVER by_time
         AND event_type = lag(event_type) OVER by_time
         AND (item_idx   IS NOT DISTINCT FROM lag(item_idx)   OVER by_time)
         AND (query_idx  IS NOT DISTINCT FROM lag(query_idx)  OVER by_time)
         AND (quantity   IS NOT DISTINCT FROM lag(quantity)   OVER by_time)
         AND (price      IS NOT DISTINCT FROM lag(price)      OVER by_time)
         AND (session_id IS NOT DISTINCT FROM lag(session_id) OVER by_time)
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
WINDOW by_time AS (
    PARTITION BY user_idx
    ORDER BY event_time, event_type, item_idx, query_idx, quantity, price, session_id
)
ORDER BY user_idx, event_time, event_type, item_idx, query_idx, quantity, price, session_id
