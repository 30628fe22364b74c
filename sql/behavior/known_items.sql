-- The items of a job that has no catalogue: those of the events that may count. Of other events' items nothing is made,
-- those of users who have not agreed among them.
SELECT DISTINCT events.item_id
FROM without_consent RIGHT ANTI JOIN (
    event_types JOIN events ON event_types.name = events.event_type
) ON without_consent.user_id = events.user_id
WHERE events.user_id IS NOT NULL AND events.event_time <= $run_end
    AND (events.quantity IS NULL OR events.quantity >= 0)
