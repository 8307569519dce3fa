"""Callback urls: which may be called, and the very addresses that a call goes to.

The rule of the file: a name is resolved once, all of its addresses are judged, and the connection goes to a judged
address and to no other; the name itself is only said to the receiver (Host, TLS). The ranges follow the IANA registries
of special-purpose addresses (RFC 6890 and its successors), not a Python version's idea of them.
"""

import ipaddress
import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from ftw.substrate.errors import ConfigError, UrlRefused

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Sequence[str]]
"""Host and port to the addresses of the host, as text. Raises OSError where there are none."""
Kind = Literal["loopback", "private", "special"]
"""`loopback`: this machine. `private`: a network of somebody's own. `special`: link-local (where clouds keep their
metadata), multicast, reserved, and forms that carry another address inside."""

MAX_URL = 2048
"""Characters of a url at most."""

HERE = tuple(map(ipaddress.ip_network, ("127.0.0.0/8", "::1/128")))
OWN = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")))
SPECIAL: tuple[tuple[Network, str], ...] = tuple(
    (ipaddress.ip_network(network), name)
    for network, name in (
        ("0.0.0.0/8", "an unspecified"),
        ("169.254.0.0/16", "a link-local"),
        ("192.0.0.0/24", "a reserved"),
        ("192.0.2.0/24", "a documentation"),
        ("192.88.99.0/24", "a 6to4 relay"),
        ("198.18.0.0/15", "a benchmarking"),
        ("198.51.100.0/24", "a documentation"),
        ("203.0.113.0/24", "a documentation"),
        ("224.0.0.0/4", "a multicast"),
        ("240.0.0.0/4", "a reserved"),
        ("::ffff:0:0/96", "an IPv4-mapped"),
        ("fe80::/10", "a link-local"),
        ("fec0::/10", "a site-local"),
        ("ff00::/8", "a multicast"),
        ("2001::/23", "a reserved"),  # Teredo and ORCHID among it
        ("2001:db8::/32", "a documentation"),
        ("2002::/16", "a 6to4"),
        ("3fff::/20", "a documentation"),
    )
)
UNICAST_6 = ipaddress.IPv6Network("2000::/3")
"""The only part of IPv6 that is given out to networks; the rest is reserved."""
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""IPv4 as an IPv6-only network reaches it (RFC 6052); judged by the address that the last 32 bits spell."""

AUTHORITY = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(:[0-9]*)?")
LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Pinned:
    """A url that may be called now, with the addresses that were judged."""

    scheme: str
    host: str
    """The name as it was given, in lower case: for the Host header, and what the certificate must name."""
    port: int
    path: str
    """Without a slash at the end; empty for the root."""
    ips: tuple[str, ...]
    """Never empty; in the resolver's order."""

    @property
    def ip(self) -> str:
        """The address to connect to first."""
        return self.ips[0]

    @property
    def url(self) -> str:
        """The url in its canonical form."""
        return f"{self.scheme}://{self.authority}{self.path}"

    @property
    def authority(self) -> str:
        """Host and port as the Host header gives them."""
        return _joined(self.host, self.port, DEFAULT_PORTS[self.scheme])

    def at(self, ip: str) -> str:
        """The url with a judged address in place of the name."""
        return f"{self.scheme}://{_joined(ip, self.port)}{self.path}"


class UrlGuard:
    """Says which urls may be called. Thread-safe: it keeps nothing between two checks.

    `allow` holds hosts and networks with commas between them (POC_CALLBACK_ALLOW). A network allows every address in
    it. A host name allows its addresses where they are of this machine or of a private network; a link-local, multicast
    or reserved one takes a network. Public addresses need no leave. Raises ConfigError for an entry that is neither.
    """

    def __init__(self, allow: str = "", allow_loopback: bool = False, resolve: Resolve | None = None) -> None:
        self._hosts, self._networks = _allowed(allow)
        self._allow_loopback = allow_loopback
        self._resolve = resolve or resolve_by_system

    def check(self, url: str) -> Pinned:
        """The url, split and pinned to addresses that may be called. Raises UrlRefused with the reason.

        Resolves the name, which may take seconds: not to be called on an event loop.
        """
        scheme, host, port, path = split(url)
        addresses = self._addresses(host, port)
        for address in addresses:
            self._judge(host, address)
        return Pinned(scheme, host, port, path, tuple(str(address) for address in addresses))

    def _addresses(self, host: str, port: int) -> list[Address]:
        literal = _literal(host)
        if literal is not None:
            return [literal]
        try:
            found = [ipaddress.ip_address(text) for text in self._resolve(host, port)]
        except (OSError, UnicodeError) as error:
            raise UrlRefused(f"the callback host {host} cannot be resolved ({error})") from error
        except ValueError as error:
            raise UrlRefused(f"the callback host {host} resolves to no address: {error}") from error
        if not found:
            raise UrlRefused(f"the callback host {host} has no address")
        return list(dict.fromkeys(found))

    def _judge(self, host: str, address: Address) -> None:
        found = kind(address)
        if found is None or any(_inside(address, network) for network in self._networks):
            return
        its_kind, name = found
        if its_kind == "loopback" and self._allow_loopback:
            return
        if its_kind in ("loopback", "private") and host in self._hosts:
            return
        which = host if _literal(host) is not None else f"{host}, which is {address},"
        entry = address if its_kind == "special" or _literal(host) is not None else host
        raise UrlRefused(
            f"the callback host {which} is {name} address: no callback goes there unless the server's operator "
            f"allows it (POC_CALLBACK_ALLOW={entry})"
        )


def split(url: str) -> tuple[str, str, int, str]:
    """Scheme, host (lower case, no brackets), port and path of a callback's base url. Raises UrlRefused.

    Stricter than the standard: no credentials, query or fragment, no characters beyond ASCII, and a number as a host
    only in the one form that everybody reads alike. The messages never quote the url: it may hold a secret.
    """
    if len(url) > MAX_URL:
        raise UrlRefused(f"the callback url has {len(url)} characters: {MAX_URL} are allowed")
    if any(not "!" <= c <= "~" or c in '\\"<>^`{|}' for c in url):
        raise UrlRefused(
            "the callback url holds a space or another character that no url has: write a name beyond ASCII as xn--…, "
            "and percent-encode the rest"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UrlRefused(f"the callback url cannot be read: {error}") from error
    if parts.scheme not in DEFAULT_PORTS:
        raise UrlRefused(f"the callback url's scheme is {parts.scheme[:20]!r}: use http or https")
    if "@" in parts.netloc:
        raise UrlRefused("the callback url carries credentials: leave out what stands before the @")
    if "?" in url or "#" in url:
        raise UrlRefused("the callback url has a query or a fragment: give the base to which /generated is added")
    if not AUTHORITY.fullmatch(parts.netloc):
        raise UrlRefused("the callback url's host and port cannot be told apart: write host, host:port or [v6]:port")
    if port == 0:
        raise UrlRefused("the callback url's port is 0: ports lie in 1..65535")
    host = _host(parts.hostname or "", bracketed="[" in parts.netloc)
    return parts.scheme, host, port or DEFAULT_PORTS[parts.scheme], parts.path.rstrip("/")


def kind(address: Address) -> tuple[Kind, str] | None:
    """What kind of address it is, and its name with an article; None for one of the public internet."""
    for network, name in SPECIAL:
        if _inside(address, network):
            return "special", name
    if any(_inside(address, network) for network in HERE):
        return "loopback", "a loopback"
    if any(_inside(address, network) for network in OWN):
        return "private", "a private"
    if isinstance(address, ipaddress.IPv4Address) or address in UNICAST_6:
        return None
    if address in NAT64 and kind(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)) is None:
        return None
    return "special", "a reserved"


def resolve_by_system(host: str, port: int) -> Sequence[str]:
    """The addresses that the operating system knows for a host, in its order of preference. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return [str(entry[4][0]) for entry in found]


def _host(host: str, *, bracketed: bool) -> str:
    """The host in the form that is used from here on. Raises UrlRefused for what is neither a name nor an address."""
    if bracketed:
        try:
            return str(ipaddress.IPv6Address(host if "%" not in host else ""))
        except ValueError as error:
            raise UrlRefused("the callback url's host in brackets is no IPv6 address (without a zone)") from error
    name = host.removesuffix(".")
    labels = name.split(".")
    if NUMBER.fullmatch(labels[-1]):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError as error:
            raise UrlRefused(
                f"the callback host {host[:40]} is a number that programs read differently: write four decimal "
                "numbers without leading zeros, as in 192.0.2.1"
            ) from error
    if len(name) > 253 or not all(LABEL.fullmatch(label) for label in labels):
        raise UrlRefused("the callback url has no host that is a name or an address")
    return name


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _allowed(allow: str) -> tuple[frozenset[str], tuple[Network, ...]]:
    hosts: set[str] = set()
    networks: list[Network] = []
    for entry in filter(None, (part.strip().lower() for part in allow.split(","))):
        try:
            networks.append(ipaddress.ip_network(entry.strip("[]")))
            continue
        except ValueError as error:
            labels = entry.removesuffix(".").split(".")
            if NUMBER.fullmatch(labels[-1]) or not all(LABEL.fullmatch(label) for label in labels):
                raise ConfigError(
                    f"POC_CALLBACK_ALLOW: {entry!r} is neither a host name nor a network ({error}): give for example "
                    "receiver.internal,10.0.0.0/8"
                ) from error
        hosts.add(entry.removesuffix("."))
    return frozenset(hosts), tuple(networks)


def _inside(address: Address, network: Network) -> bool:
    return address.version == network.version and address in network


def _joined(host: str, port: int, default: int | None = None) -> str:
    host = f"[{host}]" if ":" in host else host
    return host if port == default else f"{host}:{port}"
