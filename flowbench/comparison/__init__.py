"""From stored scores to what may be compared: rows, cells, fingerprints, verdicts."""
