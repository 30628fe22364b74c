-- Item events with the session they belong to: the shop's own, which may run beside each other, or, where it has
-- none, one that ends with half an hour of silence. Sessions are counted from 0 over all users, in the order of users,
-- the shop's names for sessions, and time. `previous_item_idx` is the item before, where it is another one and from
-- an earlier moment of the same session.
SELECT
    user_idx, item_idx, event_time,
    CAST(count_so_far(starts) OVER by_session - 1 AS INT UNSIGNED) AS session_no,
    CASE
        WHEN NOT starts AND NOT same_time AND item_before <> item_idx
        THEN item_before
    END AS previous_item_idx
FROM (
    SELECT
        user_idx, session_id, event_time, item_idx,
        NOT repeats(user_idx, session_id) OVER by_session OR (
            session_id IS NULL
            AND CAST(event_time AS BIGINT) - CAST(previous(event_time) OVER by_session AS BIGINT) > 1800e6
        )                                           AS starts,
        repeats(event_time) OVER by_session         AS same_time,
        previous(item_idx) OVER by_session          AS item_before
    FROM numbered_events
    WHERE copy <= $copies_kept AND item_idx IS NOT NULL
    WINDOW by_session AS (ORDER BY user_idx, session_id, event_time, item_idx)
)
WINDOW by_session AS (ORDER BY user_idx, session_id, event_time, item_idx)
