"""Callback urls: nothing but judged addresses is ever connected to, in whatever form a host is written."""

import ipaddress
import socket

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ftw.poc.urls import UrlGuard, kind, resolve_by_system, split
from ftw.substrate.errors import ConfigError, UrlRefused

PUBLIC = "93.184.215.14"
PUBLIC_6 = "2606:2800:21f:cb07:6820:80da:af6b:8b2c"


def answering(*ips):
    return lambda host, port: list(ips)


def guard(*ips, allow="", loopback=False):
    return UrlGuard(allow, loopback, answering(*ips))


def refuses(url, match, *ips, allow="", loopback=False):
    with pytest.raises(UrlRefused, match=match):
        guard(*ips, allow=allow, loopback=loopback).check(url)


def within(*networks):
    return st.one_of(*(st.ip_addresses(v=ipaddress.ip_network(n).version, network=n) for n in networks))


OF_THIS_MACHINE = within("127.0.0.0/8", "::1/128")
OWN = within("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
SPECIAL = within(
    "0.0.0.0/8", "169.254.0.0/16", "192.0.0.0/24", "192.0.2.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
    "224.0.0.0/4", "240.0.0.0/4", "::/128", "fe80::/10", "fec0::/10", "ff00::/8", "2001::/32", "2001:db8::/32",
    "2002::/16", "64:ff9b:1::/48", "100::/64", "5f00::/16", "::ffff:0:0/96", "::/97",
)  # fmt: skip
NOT_GLOBAL_4 = within(
    "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"
)
ANY = st.one_of(st.ip_addresses(), OF_THIS_MACHINE, OWN, SPECIAL)


def in_url(address):
    return f"[{address}]" if address.version == 6 else str(address)


# --- which addresses


@settings(deadline=None)
@given(st.one_of(OF_THIS_MACHINE, OWN, SPECIAL), st.booleans())
@example(ipaddress.ip_address("169.254.169.254"), True)
@example(ipaddress.ip_address("255.255.255.255"), False)
def test_no_address_beyond_the_public_internet_is_called(address, by_name):
    url = "http://receiver.example/poc" if by_name else f"http://{in_url(address)}/poc"
    refuses(url, "no callback goes there", str(address))


@settings(deadline=None)
@given(NOT_GLOBAL_4)
def test_an_address_inside_another_one_is_judged_or_refused(inner):
    number = int(inner)
    for outer in (
        0xFFFF << 32 | number,  # mapped
        number,  # compatible
        0x2002 << 112 | number << 80 | 1,  # 6to4
        0x20010000 << 96 | (number ^ 0xFFFFFFFF),  # Teredo
        int(ipaddress.IPv6Address("64:ff9b::")) | number,  # NAT64
        int(ipaddress.IPv6Address("64:ff9b:1::")) | number,  # NAT64 of a network's own
    ):
        refuses("http://receiver.example", "no callback goes there", str(ipaddress.IPv6Address(outer)))


@settings(deadline=None)
@given(ANY)
def test_what_is_allowed_by_default_is_what_python_calls_global(address):
    if kind(address) is None and address not in ipaddress.ip_network("64:ff9b::/96"):
        assert address.is_global
        assert not address.is_multicast


def test_nat64_reaches_a_public_address():
    assert guard(f"64:ff9b::{PUBLIC}").check("https://receiver.example").ips == ("64:ff9b::5db8:d70e",)


@settings(deadline=None)
@given(st.lists(ANY, min_size=1, max_size=5), st.booleans())
def test_one_refused_address_refuses_the_host(addresses, loopback):
    def bad(address):
        found = kind(address)
        return found is not None and not (loopback and found[0] == "loopback")

    checked = guard(*map(str, addresses), loopback=loopback)
    if any(map(bad, addresses)):
        with pytest.raises(UrlRefused):
            checked.check("http://receiver.example")
    else:
        assert set(checked.check("http://receiver.example").ips) == set(map(str, addresses))


def test_a_mixed_answer_is_refused():
    refuses("http://receiver.example/", "receiver.example, which is 10.0.0.7, is a private address", PUBLIC, "10.0.0.7")


@settings(deadline=None)
@given(ANY)
def test_a_network_allows_its_addresses_and_no_others(address):
    assert guard(str(address), allow=str(address)).check("http://receiver.example").ip == str(address)
    other = "10.99.0.1" if str(address) != "10.99.0.1" else "10.99.0.2"
    refuses("http://receiver.example", "no callback goes there", str(address), other, allow=str(address))


@settings(deadline=None)
@given(OF_THIS_MACHINE)
def test_loopback_is_allowed_where_the_server_is_on_loopback(address):
    assert guard(loopback=True).check(f"http://{in_url(address)}:9000/pow").ip == str(address)


@settings(deadline=None)
@given(st.one_of(OF_THIS_MACHINE, OWN))
def test_an_allowed_host_may_be_private(address):
    assert guard(str(address), allow=" API.internal , 10.1.0.0/16").check("http://api.internal:9100/v2").ip == str(
        address
    )
    refuses("http://other.internal:9100/v2", "POC_CALLBACK_ALLOW=other.internal", str(address), allow="api.internal")


@settings(deadline=None)
@given(SPECIAL)
@example(ipaddress.ip_address("169.254.169.254"))
def test_an_allowed_host_may_not_be_link_local_multicast_or_reserved(address):
    refuses("http://api.internal", "no callback goes there", str(address), allow="api.internal")


@pytest.mark.parametrize("allow", ["*.internal", "10.0.0.1/8", "10.0.0.0/33", "http://x", "2130706433", "a b", "1.2.3"])
def test_an_allow_list_with_something_else_stops_the_program(allow):
    with pytest.raises(ConfigError, match="neither a host name nor a network"):
        UrlGuard(allow)


# --- in which form


@pytest.mark.parametrize(
    "host",
    ["2130706433", "0x7f000001", "0x7f.0.0.1", "017700000001", "0177.0.0.1", "127.1", "127.0.1", "127.0.0.1.",
     "08.8.8.8", "8.8.8.08", "1.2.3.4.5", "1.2.3.256", "0x", "foo.0x7f", "receiver.1"],
)  # fmt: skip
def test_a_number_in_another_form_is_refused(host):
    refuses(f"http://{host}/", "a number that programs read differently", PUBLIC, allow="127.0.0.0/8", loopback=True)


@settings(deadline=None)
@given(ANY, st.sampled_from(["http", "https", "HTTP"]), st.one_of(st.none(), st.integers(1, 65535)))
def test_a_literal_is_never_resolved(address, scheme, port):
    def never(host, port):
        raise AssertionError(host)

    url = f"{scheme}://{in_url(address)}" + (f":{port}" if port else "") + "/a/b/"
    pinned = UrlGuard(str(address), False, never).check(url)
    assert pinned.ips == (str(address),)
    assert (pinned.scheme, pinned.path) == (scheme.lower(), "/a/b")
    assert pinned.port == (port or {"http": 80, "https": 443}[scheme.lower()])
    again = UrlGuard(str(address), False, never).check(pinned.url)
    assert again == pinned


@pytest.mark.parametrize("url", ["http://u@h/", "http://u:p@h/", "http://h@127.0.0.1/", "http://@h/", "http://a@b@c"])
def test_credentials_are_refused_and_never_quoted(url):
    with pytest.raises(UrlRefused, match="credentials") as refused:
        guard(PUBLIC).check(url)
    assert "u:p" not in str(refused.value)


@pytest.mark.parametrize("host", ["münchen.example", "①②⑦.0.0.1", "ⓛocalhost", "127。0。0。1", "a\u200bb.example"])
def test_a_host_beyond_ascii_is_refused_with_the_way_out(host):
    refuses(f"http://{host}/", "write a name beyond ASCII as xn--", PUBLIC)


def test_a_host_in_punycode_is_accepted():
    assert guard(PUBLIC).check("https://xn--mnchen-3ya.example").host == "xn--mnchen-3ya.example"


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("ftp://h/", "use http or https"),
        ("file:///etc/passwd", "use http or https"),
        ("gopher://h/", "use http or https"),
        ("//h/", "use http or https"),
        ("h:80", "use http or https"),
        ("", "use http or https"),
        ("http:///a", "no host"),
        ("http://", "no host"),
        ("http://h:0/", "ports lie in"),
        ("http://h:65536/", "cannot be read"),
        ("http://h:-1/", "cannot be read"),
        ("http://h:8a/", "cannot be read"),
        ("http://h/?a=b", "a query or a fragment"),
        ("http://h/#a", "a query or a fragment"),
        ("http://h/a b", "a space"),
        ("http://h/\r\nHost: x", "a space"),
        ("http://h\\@x/", "another character"),
        ("http://h/\x00", "another character"),
        ("http://[::1/", "cannot be read"),
        ("http://[fe80::1%25eth0]/", "no IPv6 address"),
        ("http://[::g]/", "no IPv6 address|cannot be read"),
        ("http://[::1]x/", "told apart|cannot be read"),
        ("http://x[::1]/", "told apart|cannot be read"),
        ("http://-a.example/", "no host"),
        ("http://a..b/", "no host"),
        ("http://a%2eb/", "no host"),
        ("http://" + "a" * 64 + ".example/", "no host"),
        ("http://" + "a." * 130 + "example/", "no host"),
        ("http://h/" + "a" * 2048, "2048 are allowed"),
    ],
)  # fmt: skip
def test_a_url_that_is_none_is_refused(url, match):
    refuses(url, match, PUBLIC, loopback=True)


@settings(deadline=None)
@given(st.text(max_size=60), st.sampled_from(["", "http://", "https://["]))
def test_any_text_is_pinned_or_refused(text, prefix):
    try:
        scheme, host, port, path = split(prefix + text)
    except UrlRefused:
        return
    assert scheme in ("http", "https")
    assert 1 <= port <= 65535
    assert (host + path).isascii()


def test_the_name_is_said_and_the_address_is_called():
    pinned = guard(PUBLIC, PUBLIC_6).check("https://Receiver.Example./v2/poc-batches/Qwen%2FQwen3/")
    assert pinned.url == "https://receiver.example/v2/poc-batches/Qwen%2FQwen3"
    assert pinned.authority == "receiver.example"
    assert pinned.at(pinned.ip) == f"https://{PUBLIC}:443/v2/poc-batches/Qwen%2FQwen3"
    assert pinned.at(PUBLIC_6) == f"https://[{PUBLIC_6}]:443/v2/poc-batches/Qwen%2FQwen3"
    assert guard(loopback=True).check("http://[::1]:9000").authority == "[::1]:9000"


# --- what the resolver says


def test_the_next_check_asks_the_resolver_again():
    answers = iter([[PUBLIC], ["127.0.0.1"]])
    rebinding = UrlGuard("", False, lambda host, port: next(answers))
    assert rebinding.check("http://receiver.example").ips == (PUBLIC,)
    with pytest.raises(UrlRefused, match=r"127\.0\.0\.1, is a loopback address"):
        rebinding.check("http://receiver.example")


def test_a_host_that_is_unknown_is_refused():
    def unknown(host, port):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.raises(UrlRefused, match=r"receiver\.example cannot be resolved .*not known"):
        UrlGuard("", False, unknown).check("http://receiver.example")


def test_a_host_without_an_address_is_refused():
    refuses("http://receiver.example", "has no address")
    refuses("http://receiver.example", "resolves to no address", "not an address")


def test_an_address_is_named_once():
    assert guard(PUBLIC, PUBLIC).check("http://receiver.example").ips == (PUBLIC,)


def test_the_system_resolves_localhost_to_loopback():
    assert all(ipaddress.ip_address(ip).is_loopback for ip in resolve_by_system("localhost", 80))
