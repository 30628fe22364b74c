-- Events that count, by index instead of id, in the order of users and time; at one moment searches come first, and
-- equal rows, by their fingerprint, together (but for a chance of 2^-39 that another row of the same user and moment
-- comes between): `place` is all of that in one number, which sorts in half the time.
-- `copy` is 1 for the first of rows that are equal in every column and 2 for those after it, which can then be
-- rejected as duplicates; `repeats` is whether all columns are those of the row before, the place first, which tells
-- most rows apart. `searched_idx` is what the user had last searched for, where that was half an hour before or less.
-- Here as elsewhere windows order by what others partition by, so that whole batches of rows are answered at once.
SELECT
    user_idx, event_time, event_type, item_idx, query_idx, quantity, price, session_id,
    CASE WHEN is_copy THEN 2 ELSE 1 END AS copy,
    CASE
        WHEN asked_by = user_idx AND CAST(event_time AS BIGINT) - CAST(asked_at AS BIGINT) <= 1800e6
        THEN last_asked
    END AS searched_idx
FROM (
    SELECT
        *,
        repeats(
            place, user_idx, event_time, event_type, item_idx, query_idx, quantity, price, session_id
        ) OVER so_far                                                               AS is_copy,
        latest(query_idx) OVER so_far                                               AS last_asked,
        latest(CASE WHEN query_idx IS NOT NULL THEN user_idx END) OVER so_far       AS asked_by,
        latest(CASE WHEN query_idx IS NOT NULL THEN event_time END) OVER so_far     AS asked_at
    FROM (
        SELECT
            user_ids.user_idx,
            checked_events.event_time,
            checked_events.known_type AS event_type,
            checked_events.item_idx,
            query_ids.query_idx,
            checked_events.quantity,
            checked_events.price,
            checked_events.session_id,
            packed(
                user_ids.user_idx, CAST(checked_events.event_time AS BIGINT), query_ids.query_idx IS NULL,
                fingerprint(
                    query_ids.query, checked_events.known_type, checked_events.item_idx,
                    checked_events.quantity, checked_events.price, checked_events.session_id
                )
            ) AS place
        FROM query_ids RIGHT JOIN (
            user_ids JOIN checked_events ON user_ids.user_id = checked_events.user_id
        ) ON query_ids.query = checked_events.normalised_query
        WHERE checked_events.reason IS NULL AND checked_events.exclusion IS NULL
    )
    WINDOW so_far AS (ORDER BY place)
)
ORDER BY place
