"""`lsan serve`: recommendations over HTTP from an exported file."""

import argparse
import ipaddress
import signal
import tempfile
from pathlib import Path

from lsan.errors import ConfigError
from lsan.extras import require_extra
from lsan.serving.listen import listen
from lsan.serving.settings import Settings
from lsan.serving.supervisor import Supervisor

#: What the extra brings.
_PACKAGES = ("fastapi", "fastapi_offline", "httptools", "prometheus_client", "uvicorn", "uvloop")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lsan serve`."""
    parser.add_argument(
        "file", metavar="FILE", type=Path, help="file that `lsan export` wrote; a new one is swapped in"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; default 127.0.0.1, this machine alone"
    )
    parser.add_argument("--port", type=int, default=8000, help="default 8000; 0 picks one that is free")
    parser.add_argument("--workers", metavar="N", type=int, default=1, help="processes; default 1")
    parser.add_argument(
        "--api-key-file", metavar="FILE", type=Path, help="keys that are accepted, one a line; default: none is needed"
    )
    parser.add_argument(
        "--max-requests", metavar="N", type=int, default=256,
        help="requests under way in each process before further ones are sent away for a second; default 256",
    )  # fmt: skip
    parser.add_argument(
        "--patience", metavar="SECONDS", type=float, default=10.0,
        help="how long a client may take to send a request's head, then its body, or to read; default 10",
    )  # fmt: skip
    parser.add_argument("--no-access-log", action="store_true", help="log no line for each request")


def run(args: argparse.Namespace) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Raises:
        LsanError: when the file or the keys cannot be used, or the address cannot be listened on.
    """
    for flag, least, most in (("port", 0, 65_535), ("workers", 1, 256), ("max_requests", 1, 10**6)):
        if not least <= getattr(args, flag) <= most:
            name = flag.replace("_", "-")
            raise ConfigError(f"--{name} {getattr(args, flag)}: expected a whole number of {least} to {most}")
    if not 0 < args.patience <= 3600:
        raise ConfigError(f"--patience {args.patience}: expected seconds, at most 3600")
    require_extra("serve", *_PACKAGES, needed_by="lsan serve")
    listeners = listen(args.host, args.port, args.workers)
    with tempfile.TemporaryDirectory(prefix="lsan-serve-") as folder:
        settings = Settings(
            file=args.file,
            workers=args.workers,
            api_key_file=args.api_key_file,
            requests=args.max_requests,
            patience=args.patience,
            access_log=not args.no_access_log,
            folder=Path(folder) if args.workers > 1 else None,
        )
        open_to_all = args.api_key_file is None and not _is_loopback(listeners[0].getsockname()[0])
        place = f"http://{_in_url(args.host)}:{listeners[0].getsockname()[1]}"

        def ready(version: str) -> None:
            print(f"{args.file} (model {version}) is served at {place}; Ctrl-C stops it", flush=True)
            if open_to_all:
                print("note: everybody who reaches this address may ask; --api-key-file asks for keys", flush=True)

        if args.workers > 1:
            Supervisor(settings, listeners).run(ready)
        else:
            from lsan.serving.server import Worker  # what it loads, the workers alone need

            worker = Worker(settings, listeners[0])
            worker.run(lambda: ready(worker.version), stop_on=(signal.SIGINT, signal.SIGTERM))
    print("stopped")


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
