"""API keys."""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from pathlib import Path

from lsan.errors import ConfigError

#: Fewest characters of a key.
_SHORTEST = 16


class Keys:
    """Keys that are accepted. Only their hashes are kept."""

    def __init__(self, keys: Iterable[bytes]) -> None:
        self._hashes = [_hash(key) for key in keys]

    @classmethod
    def read(cls, path: Path) -> "Keys":
        """From a file with one key a line; empty lines are passed over.

        Raises:
            ConfigError: when it cannot be read, holds no key, or a key is so short that it can be guessed.
        """
        try:
            lines = path.read_bytes().split(b"\n")
        except OSError as error:
            raise ConfigError(f"{path}: the API keys cannot be read ({error.strerror})") from error
        keys = [line.strip() for line in lines]
        for number, key in enumerate(keys, start=1):
            if key and len(key) < _SHORTEST:
                raise ConfigError(f"{path}, line {number}: an API key of fewer than {_SHORTEST} characters")
        if not any(keys):
            raise ConfigError(f"{path}: no API key in it; write one a line, such as `openssl rand -hex 32` makes")
        return cls(key for key in keys if key)

    def accept(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a request with these headers (names in lower case) brings one of the keys. Takes as long whether it
        does or not, and whichever it is."""
        scheme, _, bearer = headers.get(b"authorization", b"").partition(b" ")
        brought = _hash(bearer.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"").strip())
        return sum(hmac.compare_digest(brought, known) for known in self._hashes) > 0


def _hash(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
