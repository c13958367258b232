"""The page that recommends in a browser (a stub, to be replaced)."""
