"""Accuracy by ranking the whole catalogue: ranks first, metrics as pure functions of ranks."""
