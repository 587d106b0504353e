-- Entries stand in one table for each generation, g_1, g_2 and so on, which is dropped as a whole:
--   cursor INTEGER PRIMARY KEY, key INTEGER (first 8 bytes of the id, indexed), head, payload
-- `ends` is when a generation may go, in milliseconds since 1970.
CREATE TABLE generations (
    generation INTEGER NOT NULL PRIMARY KEY,
    ends INTEGER NOT NULL
) STRICT;

-- What was appended, in cursor order over all generations: the index entries of up to 256
-- transactions a row (see codec.rs), under the cursor of the last. A row goes with the last of its
-- generations, which ends at `ends`.
CREATE TABLE blocks (
    last INTEGER NOT NULL PRIMARY KEY,
    ends INTEGER NOT NULL,
    block BLOB NOT NULL
) STRICT;

CREATE INDEX blocks_ends ON blocks (ends);

-- The highest cursor of each topic that is gone together with its row in `blocks`.
CREATE TABLE losses (
    topic INTEGER NOT NULL PRIMARY KEY,
    last INTEGER NOT NULL
) STRICT;

-- Where named subscriptions stand.
CREATE TABLE cursors (
    name TEXT NOT NULL PRIMARY KEY,
    cursor INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- `leased`: cursors up to it may have been given out. `base`: where this file's cursors began.
-- `generation`: the newest number. `losses`: what holds for topics that are not listed.
CREATE TABLE meta (
    name TEXT NOT NULL PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
