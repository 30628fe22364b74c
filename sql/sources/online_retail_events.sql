-- UCI Online Retail as it comes: dates as text, customer ids as floats with gaps, cancellations as
-- invoices that begin with C and carry negative quantities. Cancelled and unassigned lines stay in,
-- so that they are counted and rejected, not lost.
SELECT
    CAST(CAST("CustomerID" AS BIGINT) AS VARCHAR)                       AS user_id,
    CAST("StockCode" AS VARCHAR)                                        AS item_id,
    'purchase'                                                          AS event_type,
    to_timestamp("InvoiceDate", '%m/%d/%Y %H:%M', '%d/%m/%Y %H:%M', '%Y-%m-%d %H:%M:%S')   AS event_time,
    "Quantity"                                                          AS quantity,
    "UnitPrice"                                                         AS price,
    CAST("InvoiceNo" AS VARCHAR)                                        AS session_id
FROM source
