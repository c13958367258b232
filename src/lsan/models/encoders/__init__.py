"""How the vectors of a history become one vector. One file an encoder."""
