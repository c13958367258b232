"""A static site that recommends in the browser, from a bundle."""
