-- What is known of one user, in the order it is shown.
SELECT
    segment                                             AS segment,
    n_events                                            AS events,
    n_items                                             AS items,
    n_purchases                                         AS purchases,
    CAST(CAST(last_time AS DATE) AS VARCHAR)            AS "last seen"
FROM one_profile
