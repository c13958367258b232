"""Sockets to listen on."""

import errno
import socket

from lsan.errors import ConfigError

#: Connections that wait to be accepted.
_BACKLOG = 2048


def listen(host: str, port: int, count: int) -> list[socket.socket]:
    """So many sockets that listen on the same address, among which the kernel shares out connections. Port 0 is any
    that is free.

    Raises:
        ConfigError: when that is not possible, with what to do.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise ConfigError(f"--host {host!r} is no address of this machine ({error.strerror})") from error
    made: list[socket.socket] = []
    try:
        socket.create_server(address, family=family).close()  # fails where another service shares its port too
        for _ in range(count):
            made.append(socket.create_server(address, family=family, backlog=_BACKLOG, reuse_port=count > 1))
            address = made[0].getsockname()
    except OSError as error:
        for one in made:
            one.close()
        raise ConfigError(_advice(host, port, error)) from error
    return made


def _advice(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is in use: stop what listens there, or name another --port (0: any free one)"
    if error.errno == errno.EACCES:
        return f"port {port} is reserved for the system: name a --port of 1024 or above"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"--host {host!r} is no address of this machine"
    return f"cannot listen on port {port} of {host}: {error.strerror}"
