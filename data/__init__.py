"""Records: readers, labels, splits, and the generator of the embedded sample."""
