"""A socket to listen on, and a server that ends by itself: what verbs that serve have in common.

The rule of the file: an address that cannot be had is an error that names a way out.
"""

import errno
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from ftw.substrate.errors import ConfigError


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one. Raises ConfigError where the address cannot be had."""
    if not 0 <= port <= 65535:
        raise ConfigError(f"--port is {port}: ports lie in 0..65535, and 0 takes a free one")
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        ways = {
            errno.EADDRINUSE: f"port {port} is taken: end the program that has it, or give another one with --port",
            errno.EACCES: f"port {port} takes rights that this user does not have: give one from 1024 on",
        }
        number = error.errno or 0
        what = "no such host" if number < 0 else os.strerror(number)  # a resolver's numbers lie below 0
        way = ways.get(number, f"{what}: give an address of this machine")
        raise ConfigError(f"cannot listen on {host}: {way}") from error
    # connections inherit it; without, an answer in two packets waits 40 ms for the client's delayed acknowledgement
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def url_of(listener: socket.socket) -> str:
    """Where it listens, as clients write it."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def ended_after(server: uvicorn.Server, seconds: float | None) -> Iterator[None]:
    """Within, the server is told to end after so many seconds; never, where that is None."""

    def end() -> None:
        server.should_exit = True

    timer = threading.Timer(threading.TIMEOUT_MAX if seconds is None else seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
