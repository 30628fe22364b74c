-- Every event as it was read, with the first reason why it cannot be used (`reason`, a fault of the
-- row) or is not wanted (`exclusion`, a choice of the job); that its user is a program is found out afterwards.
-- Here as in every statement, the side of a join that is held in memory stands on the left.
SELECT
    events.*,
    event_types.event_type AS known_type,
    item_ids.item_idx,
    CASE WHEN event_types.event_type = 'search'
         THEN nullif(btrim(regexp_replace(lower(events.query), '\s+', ' ', 'g')), '')
    END AS normalised_query,
    CASE
        WHEN without_consent.user_id IS NOT NULL                             THEN NULL
        WHEN events.user_id IS NULL                                          THEN 'null_user'
        WHEN events.event_time IS NULL                                       THEN 'null_time'
        WHEN event_types.event_type IS NULL                                  THEN 'unknown_type'
        WHEN events.event_time > $run_end
            THEN CASE WHEN $reject_later THEN 'future_time' END
        WHEN events.quantity < 0                                             THEN 'negative_quantity'
        WHEN events.item_id IS NOT NULL AND item_ids.item_idx IS NULL        THEN 'unknown_item'
        WHEN event_types.event_type <> 'search' AND events.item_id IS NULL   THEN 'null_item'
        WHEN event_types.event_type = 'search'
             AND NOT coalesce(regexp_like(events.query, '\S'), FALSE)       THEN 'null_query'
    END AS reason,
    CASE
        WHEN without_consent.user_id IS NOT NULL                             THEN 'no_consent'
        WHEN events.event_time > $run_end                                    THEN 'later'
        WHEN events.event_time < $history_start                              THEN 'before_history'
        WHEN event_types.weight = 0                                          THEN 'unweighted_type'
    END AS exclusion
FROM without_consent RIGHT JOIN (
    item_ids RIGHT JOIN (
        event_types RIGHT JOIN events ON event_types.name = events.event_type
    ) ON item_ids.item_id = events.item_id
) ON without_consent.user_id = events.user_id
