"""From somebody's files to checked splits: readers, checks, histories, splits, vectors of texts and images."""
