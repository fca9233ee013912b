"""What models are worth and what they cost: ranks, metrics, results and their tables."""
