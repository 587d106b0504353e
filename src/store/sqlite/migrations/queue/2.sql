-- Payloads of more than 256 KiB stand beside their row, which has an empty one (see slices.rs). Rows
-- from before have their payloads whole.
CREATE TABLE slices (
    owner INTEGER NOT NULL,
    slice INTEGER NOT NULL,
    bytes BLOB NOT NULL,
    UNIQUE (owner, slice)
) STRICT;
