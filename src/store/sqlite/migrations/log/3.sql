-- Large payloads on their way in that had to make room. The oldest has the lowest `number`; `bytes`
-- are those of its pieces and their proofs; it may go at `ends`.
CREATE TABLE partials (
    partial INTEGER NOT NULL PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    number INTEGER NOT NULL,
    ends INTEGER NOT NULL,
    bytes INTEGER NOT NULL
) STRICT;

CREATE TABLE pieces (
    partial INTEGER NOT NULL,
    piece INTEGER NOT NULL,
    proof BLOB NOT NULL,
    bytes BLOB NOT NULL,
    UNIQUE (partial, piece)
) STRICT;
