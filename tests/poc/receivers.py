"""Receivers on loopback that do as they are told, for tests of what only a socket shows."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Came:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """A receiver under test: what came, and what it answers. `answer` may block, and may be replaced at any time."""

    url: str = ""
    port: int = 0
    came: list[Came] = field(default_factory=list)
    answer: Callable[[Came], tuple[int, dict[str, str], bytes]] = lambda came: (200, {}, b"")
    arrived: threading.Condition = field(default_factory=threading.Condition)

    def wait_for(self, n: int, timeout_s: float = 20.0) -> list[Came]:
        """The requests, once there are n of them."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.came) >= n, timeout_s), self.came
            return list(self.came)


@contextmanager
def receiving(context: ssl.SSLContext | None = None, port: int = 0) -> Iterator[Receiver]:
    """A receiver on loopback, over TLS with a context."""
    it = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            came = Came(self.path, dict(self.headers.items()), body)
            with it.arrived:
                it.came.append(came)
                it.arrived.notify_all()
            status, headers, said = it.answer(came)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(said)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a client that was cut short

        def get_request(self) -> tuple[socket.socket, Any]:
            connection, address = super().get_request()
            return (connection if context is None else context.wrap_socket(connection, server_side=True)), address

    server = Quiet(("127.0.0.1", port), Handler)
    it.port = server.server_address[1]
    it.url = f"{'http' if context is None else 'https'}://127.0.0.1:{it.port}/pow"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield it
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def talking(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """The port of a server that does `talk` with every connection, in a thread of its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    open_: list[socket.socket] = []

    def each(connection: socket.socket) -> None:
        try:
            with connection:
                talk(connection)
        except OSError:
            return

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            open_.append(connection)
            threading.Thread(target=each, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in open_:
            connection.close()
        thread.join(5)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])
