"""What can be chosen about the service."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a worker needs to know."""

    file: Path
    """The bundle, which is watched."""
    workers: int = 1
    """Processes."""
    api_key_file: Path | None = None
    """Keys, one a line; None where none is needed."""
    requests: int = 256
    """Requests under way in one worker; further ones are answered with 503."""
    patience: float = 10
    """Seconds that a client may take to send a request's head, then its body, and to read what fills its buffers."""
    access_log: bool = True
    """Log a line for each request."""
    folder: Path | None = None
    """Where several workers keep their metrics and the latest good bundle; None for one worker."""
