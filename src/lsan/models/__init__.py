"""A model is an item table (item -> vector, vector -> scores of all items) and an encoder (history -> vector)."""
