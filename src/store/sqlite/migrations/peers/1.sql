-- Numbers without sign are kept in SQLite's signed 64 bits, bit for bit.
CREATE TABLE peers (
    peer BLOB NOT NULL PRIMARY KEY,
    -- The signed record, all four or none; endpoints one a line.
    seq INTEGER,
    issued INTEGER,
    endpoints TEXT,
    signature BLOB,
    verified TEXT,
    last_up INTEGER,
    failures INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE bans (
    peer BLOB NOT NULL PRIMARY KEY,
    -- NULL is for good.
    until INTEGER,
    reason TEXT NOT NULL
) STRICT, WITHOUT ROWID;
