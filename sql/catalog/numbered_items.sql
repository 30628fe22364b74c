-- The items input, every row with its place among those of the same id: one that may be listed comes
-- first, of those the first by title, and at last by a fingerprint of the whole row, so that rows that
-- differ have one order. `described_items` is the items input with columns of the job's beside its own, which
-- may have any other name: the text that is embedded, the rule, boost, pin and fingerprint.
SELECT
    *,
    row_number() OVER (
        PARTITION BY item_id
        ORDER BY
            lamplighter_eligible DESC, title, lamplighter_text, price, brand, category, created_at,
            description, tags, lamplighter_boost, lamplighter_pin, lamplighter_fingerprint
    ) AS lamplighter_copy
FROM described_items
