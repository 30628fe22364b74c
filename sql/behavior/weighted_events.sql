-- The events of one window with their weight as implicit feedback: the type's weight, halved every
-- `half_life_days`, times 1 + ln(quantity) for a purchase. Weights are whole millionths, because
-- sums of integers do not depend on the order in which threads add them.
SELECT
    numbered_events.*,
    event_types.strength,
    greatest(1, CAST(round(
        1e6 * event_types.weight
        * exp(-ln(2.0) * (CAST($as_of AS BIGINT) - CAST(event_time AS BIGINT)) / 86400e6 / $half_life_days)
        * CASE WHEN numbered_events.event_type = 'purchase'
               THEN 1.0 + ln(greatest(coalesce(quantity, 1.0), 1.0)) ELSE 1.0 END
    ) AS BIGINT)) AS weight_micro
FROM (SELECT DISTINCT event_type, weight, strength FROM event_types) AS event_types
JOIN numbered_events ON event_types.event_type = numbered_events.event_type
WHERE copy <= $copies_kept AND event_time < $until
