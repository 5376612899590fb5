"""Records in, scored rows out: readers, labels, splits, the embedded sample, and the scoring of tables."""
