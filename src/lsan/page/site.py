"""The files of the page (a stub, to be replaced)."""


def site_files(content: bytes) -> dict[str, bytes]:
    """Files of the page by path, for a bundle's bytes."""
    index = b'<!doctype html><html lang="en"><title>lsan</title><script src="app.js" defer></script><p>stub</p></html>'
    return {"index.html": index, "app.js": b'"use strict";\n', "model.lsan": content}
