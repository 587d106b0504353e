-- Generations from before stand under a key each, which is indexed (see 1.sql); nothing is added to
-- them any more. Newer ones are:
--   cursor INTEGER PRIMARY KEY, head, payload
ALTER TABLE generations ADD COLUMN keyed INTEGER NOT NULL DEFAULT 0;
UPDATE generations SET keyed = 1;

-- Which ids stand where, in runs (see keys.rs): the highest cursor in a run, and when it may go.
CREATE TABLE runs (
    run INTEGER NOT NULL PRIMARY KEY,
    last INTEGER NOT NULL,
    ends INTEGER NOT NULL,
    entries INTEGER NOT NULL
) STRICT;

-- The places of a run, in the order of their keys, up to 128 a row: row `part` of a run is under
-- run * 65536 + part.
CREATE TABLE keys (
    part INTEGER NOT NULL PRIMARY KEY,
    first INTEGER NOT NULL,
    places BLOB NOT NULL
) STRICT;
