"""The engine in C, where it was built: see `lsan.runtime._native.engine`."""
