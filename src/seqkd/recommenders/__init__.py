"""What models share: the verbs of every recommender, and of those that know users, edges, fields or heads."""
