CREATE TABLE outbox (
    seq INTEGER NOT NULL PRIMARY KEY,
    id BLOB NOT NULL,
    -- Format, signature and canonical header; see codec.rs.
    head BLOB NOT NULL,
    payload BLOB NOT NULL
) STRICT;

-- Entries that are not here were never tried. Apart from the payloads, so that a new state does
-- not write them again.
CREATE TABLE states (
    seq INTEGER NOT NULL PRIMARY KEY,
    attempts INTEGER NOT NULL,
    due INTEGER NOT NULL,
    -- Of dead letters only.
    reason TEXT,
    since INTEGER
) STRICT;

CREATE INDEX dead ON states (seq) WHERE reason IS NOT NULL;

-- Sequence numbers up to `leased` may have been given out.
CREATE TABLE meta (
    name TEXT NOT NULL PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
