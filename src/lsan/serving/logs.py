"""The log: one JSON object a line, on standard error. Never what clients sent, for that is what people looked at."""

import contextlib
import json
import logging
import sys
import time
import traceback
from typing import Any

_own = logging.getLogger("lsan.serving")


def log_to_standard_error() -> None:
    """All that this process logs becomes lines of JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


class JsonLines(logging.Formatter):
    """Time, level, event and what belongs to it. Of an exception only its type and where it was raised: its message may
    quote a request."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        entries: dict[str, Any] = {
            "time": _stamp(record.created), "level": record.levelname.lower(), "event": record.getMessage(),
        }  # fmt: skip
        if record.name.partition(".")[0] != "lsan":
            entries["logger"] = record.name
        entries |= getattr(record, "entries", {})
        if record.exc_info and record.exc_info[0] is not None:
            entries["exception"] = record.exc_info[0].__name__
            frames = traceback.extract_tb(record.exc_info[2])
            entries["at"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-10:]]
        return json.dumps(entries, ensure_ascii=False)


def log(event: str, *, level: int = logging.INFO, error: BaseException | None = None, **entries: Any) -> None:
    """One line."""
    _own.log(level, event, exc_info=error, extra={"entries": entries})


def log_request(method: str, route: str, status: int, seconds: float, size: int) -> None:
    """One line for a request; all that is in it is known to need no escapes. By hand, since `logging` would take longer
    than all else that the service adds to a recommendation."""
    with contextlib.suppress(OSError):  # nobody reads the log any more
        sys.stderr.write(
            f'{{"time": "{_stamp(time.time())}", "level": "info", "event": "request", "method": "{method}", '
            f'"route": "{route}", "status": {status}, "ms": {seconds * 1000:.3f}, "bytes": {size}}}\n'
        )


def _stamp(seconds: float) -> str:
    whole, part = divmod(seconds, 1)
    return time.strftime(f"%Y-%m-%dT%H:%M:%S.{int(part * 1000):03d}Z", time.gmtime(whole))
