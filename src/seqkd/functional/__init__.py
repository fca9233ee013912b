"""Tensor functions without state: losses, scores of candidates, rankings and draws from them."""
