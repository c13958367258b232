"""A bundle over HTTP: `lsan serve` (docs/serving.md). Needs the extra `serve`, and nothing of training."""
