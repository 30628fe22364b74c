-- Why events were rejected, on which days, and one of them to look for in the source.
SELECT
    reason,
    count(*)                            AS n_events,
    min(CAST(event_time AS DATE))       AS first_day,
    max(CAST(event_time AS DATE))       AS last_day,
    min(CAST(user_id AS VARCHAR))       AS a_user,
    min(CAST(item_id AS VARCHAR))       AS an_item
FROM rejected_events
GROUP BY reason
ORDER BY n_events DESC, reason
