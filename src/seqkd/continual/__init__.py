"""Recommenders on a log that never stops: how they grow with it, keep what they know and learn what is new."""
