"""From any interaction log to a prepared, memory-mapped dataset. Nothing here needs torch."""
