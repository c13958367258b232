"""Several models on the same held-out events: trained for several seeds, evaluated once each, set beside the best."""
