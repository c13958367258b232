"""Tuning: a small search for a better recipe, on validation data only."""
