"""From a trained run to files that other engines read."""
