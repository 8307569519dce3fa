"""One callback over the wire: posted to an address that was judged, within a time, read within bounds.

The rule of the file: whatever a receiver does is an answer and never an error, it costs at most the time given, and
this is the only door to the HTTP client.
"""

import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from socket import SHUT_RDWR
from types import TracebackType
from typing import Any

import httpx2

from ftw import __version__
from ftw.poc.urls import Pinned, UrlGuard
from ftw.substrate.errors import UrlRefused

TIMEOUT_S = 10.0
"""Seconds that one post may take from the first packet to the last, over all addresses of the receiver."""
ANSWER_BYTES = 16 * 1024
"""How much of an answer's body is read; the rest is not waited for."""
TOLD = 200
"""Characters of an answer that go into the error."""
TRIED = 4
"""Addresses of one host that are tried in one post."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one post."""

    status: int | None
    """None where no HTTP answer came."""
    error: str
    """Empty for a delivered parcel."""

    @property
    def ok(self) -> bool:
        """Whether the receiver has taken the parcel: a status of 200 to 299."""
        return not self.error


Transport = httpx2.BaseTransport
"""What carries a request: tests pass their own."""


def open_transport(authorities: ssl.SSLContext | None = None) -> httpx2.HTTPTransport:
    """The transport that callbacks go through: no proxies, no redirects, no cookies, no kept connections.

    A transport and not a client, for a client adds all of these. Certificates are verified against `authorities`; None
    is the system's (or SSL_CERT_FILE). A connection serves one post: kept ones are found again by their address, and
    two names at one address would share what only one of them has a certificate for.
    """
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
    return httpx2.HTTPTransport(verify=True if authorities is None else authorities, limits=limits)


class Poster:
    """Posts bodies to receivers. Thread-safe. The transport stays open at the end: its owner closes it."""

    def __init__(self, transport: Transport, guard: UrlGuard, timeout_s: float = TIMEOUT_S) -> None:
        self._transport = transport
        self._guard = guard
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._running: set[_Cut] = set()
        self._is_closed = False

    def post(self, base: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Posts to `base` + `path` and gives what came of it; whatever the receiver does is an answer, not an error.

        The url is judged again, and its addresses are tried in their order until one takes the connection.
        """
        try:
            pinned = self._guard.check(base)
        except UrlRefused as error:
            return Answer(None, str(error))
        with _Cut(self._timeout_s) as cut:
            with self._lock:
                if self._is_closed:
                    return Answer(None, "cut short by the end of the program")
                self._running.add(cut)
            try:
                return self._try_all(pinned, path, body, headers, cut)
            finally:
                with self._lock:
                    self._running.discard(cut)

    def close(self) -> None:
        """Ends the posts that run, and makes further ones fail."""
        with self._lock:
            self._is_closed = True
            running = tuple(self._running)
        for cut in running:
            cut.end()

    def _try_all(self, pinned: Pinned, path: str, body: bytes, headers: Mapping[str, str], cut: "_Cut") -> Answer:
        ips = pinned.ips[:TRIED]
        error = ""
        for ip in ips:
            request = self._request(pinned, ip, path, body, headers, cut, share=len(ips))
            try:
                return self._send(request)
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as failed:  # nothing was sent: the next one may answer
                error = _told(failed, cut)
            except httpx2.TransportError as failed:
                return Answer(None, _told(failed, cut))
            if cut.is_over:
                break
        return Answer(None, error)

    def _request(
        self, pinned: Pinned, ip: str, path: str, body: bytes, headers: Mapping[str, str], cut: "_Cut", share: int
    ) -> httpx2.Request:
        """The request to one address. Certificate and Host are those of the name (`sni_hostname`, RFC 9110 7.2)."""
        timeout = httpx2.Timeout(self._timeout_s, connect=self._timeout_s / share)
        sent = {
            "Host": pinned.authority,
            "Content-Type": "application/json",
            "User-Agent": f"ftw/{__version__}",
            "Connection": "close",
        }
        extensions = {"timeout": timeout.as_dict(), "sni_hostname": pinned.host, "trace": cut.watch}
        return httpx2.Request(
            "POST", pinned.at(ip) + path, headers=sent | dict(headers), content=body, extensions=extensions
        )

    def _send(self, request: httpx2.Request) -> Answer:
        response = self._transport.handle_request(request)
        try:
            if 200 <= response.status_code < 300:
                return Answer(response.status_code, "")
            return Answer(response.status_code, f"the receiver answered {response.status_code}{_said(response)}")
        finally:
            response.close()


class _Cut:
    """Ends a connection when its time is over, in whatever state it is: a socket's own timeout starts at every byte."""

    def __init__(self, seconds: float) -> None:
        self.is_over = False
        self._lock = threading.Lock()
        self._socket: Any = None
        self._timer = threading.Timer(seconds, self.end)
        self._timer.daemon = True

    def __enter__(self) -> "_Cut":
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        self._watch(None)

    def watch(self, event: str, info: Mapping[str, Any]) -> None:
        """The transport's trace: keeps a second handle of the new connection (TLS takes the first one over)."""
        if event == "connection.connect_tcp.complete":
            self._watch(info["return_value"].get_extra_info("socket").dup())

    def _watch(self, socket: Any) -> None:
        with self._lock:
            old, self._socket = self._socket, socket
        if old is not None:
            old.close()
        if socket is not None and self.is_over:
            self.end()

    def end(self) -> None:
        """The time is over: shuts the connection, if there is one, and any that is still to come."""
        with self._lock:
            self.is_over = True
            if self._socket is not None:
                _shut(self._socket)


def _shut(socket: Any) -> None:
    try:
        socket.shutdown(SHUT_RDWR)
    except OSError:  # the receiver was faster
        return


def _said(response: httpx2.Response) -> str:
    """The start of an answer's body on one line, as text to show. What is wrong with the body is of no interest."""
    found = b""
    try:
        for chunk in response.iter_raw():
            found += chunk[: ANSWER_BYTES - len(found)]
            if len(found) >= ANSWER_BYTES:
                break
    except httpx2.TransportError:
        pass  # the status has come and decides; this text is for people only
    text = found.decode("utf-8", "replace")
    words = " ".join("".join(c if c.isprintable() or c.isspace() else "�" for c in text).split())
    return f": {words[:TOLD]}" if words else ""


def _told(error: httpx2.TransportError, cut: _Cut) -> str:
    if cut.is_over or isinstance(error, httpx2.TimeoutException):
        return "the receiver did not answer in time"
    return f"the receiver cannot be reached ({str(error) or type(error).__name__})"
