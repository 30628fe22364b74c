-- The items input, every row with its place among those of the same id: one that may be listed comes
-- first, and of those the first by title. `described_items` is the items input with `item_text` (the text
-- that is embedded) and `may_be_listed` (the job's rule) beside its columns.
SELECT
    *,
    row_number() OVER (
        PARTITION BY item_id
        ORDER BY may_be_listed DESC, title, item_text, price, brand, category, created_at, description, tags
    ) AS copy
FROM described_items
