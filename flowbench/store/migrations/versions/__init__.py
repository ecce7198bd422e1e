"""One file per revision of the tables; a published one never changes."""
