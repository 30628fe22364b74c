-- Complete Journey's products as catalogue items. Fuel and coupon lines are sold but cannot be
-- recommended; `in_stock` says so to the default rule.
SELECT
    product_id                                                          AS item_id,
    initcap(coalesce(product_type, product_category, department))       AS title,
    brand,
    department || ' > ' || coalesce(product_category, 'OTHER')          AS category,
    package_size                                                        AS description,
    department <> 'FUEL'
        AND coalesce(product_category, '') NOT IN ('COUPON/MISC ITEMS', 'FUEL')  AS in_stock
FROM source
