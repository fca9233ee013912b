"""From the rows of a split to a batch."""
