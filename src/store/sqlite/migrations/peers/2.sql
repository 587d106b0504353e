-- The transport by which a peer answered at its verified address.
ALTER TABLE peers ADD COLUMN rung TEXT;
