-- Payloads of more than 256 KiB stand beside their row, which has an empty one, in slices, in a table
-- for each generation that has such: s_1, s_2 and so on, which is dropped with it (see slices.rs).
--   owner INTEGER (the cursor), slice INTEGER, bytes BLOB
-- Rows from before have their payloads whole. The version tells earlier programs to keep off.
SELECT 1;
