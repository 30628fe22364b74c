-- What rows are listed for: by source, how many rows, at which ranks, and one reason in words.
SELECT
    source,
    count(*)                                                AS n_rows,
    round(count(*) / CAST(sum(count(*)) OVER () AS DOUBLE), 3)  AS share,
    round(avg(rank), 1)                                     AS mean_rank,
    min(reason)                                             AS a_reason
FROM recommendations
GROUP BY source
ORDER BY n_rows DESC, source
