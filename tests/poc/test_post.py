"""One callback over the wire: only to judged addresses, certificates of the name, within a time, within bounds."""

import datetime
import socket
import ssl
import threading
import time

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ftw.poc.post import ANSWER_BYTES, TOLD, Poster, open_transport
from ftw.poc.urls import UrlGuard
from tests.poc.receivers import free_port, receiving, talking

PUBLIC = "93.184.215.14"


def poster(transport=None, *, resolve=None, timeout_s=10.0, allow="", loopback=True):
    return Poster(transport or open_transport(), UrlGuard(allow, loopback, resolve), timeout_s)


def post(to, url, **headers):
    return to.post(url, "/generated", b'{"a":1}', headers)


def certify(name, folder):
    """A server's context with a certificate for `name`, and a client's that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "c.pem").write_bytes(pem + key.private_bytes(encoding, form, serialization.NoEncryption()))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "c.pem")
    return server, ssl.create_default_context(cadata=pem.decode())


# --- what is sent


def test_a_post_says_what_it_is_and_nothing_more():
    with receiving() as receiver:
        answer = post(poster(), receiver.url, **{"X-Ftw-Sequence": "7"})
        assert (answer.ok, answer.status, answer.error) == (True, 200, "")
        came = receiver.came[0]
    assert (came.path, came.body) == ("/pow/generated", b'{"a":1}')
    assert came.headers.pop("User-Agent").startswith("ftw/")
    assert came.headers == {
        "Host": f"127.0.0.1:{receiver.port}",
        "Content-Type": "application/json",
        "Connection": "close",
        "Content-Length": "7",
        "X-Ftw-Sequence": "7",
    }


def test_proxies_of_the_environment_are_not_used(monkeypatch):
    with receiving() as proxy, receiving() as receiver:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert post(poster(), receiver.url).ok
        assert (len(proxy.came), len(receiver.came)) == (0, 1)


def test_cookies_are_not_kept():
    with receiving() as receiver:
        receiver.answer = lambda came: (200, {"Set-Cookie": "a=b; Path=/"}, b"")
        it = poster()
        assert post(it, receiver.url).ok
        assert post(it, receiver.url).ok
        assert "Cookie" not in receiver.came[1].headers


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_a_failure_and_is_not_followed(status):
    with receiving() as receiver, receiving() as other:
        receiver.answer = lambda came: (status, {"Location": other.url}, b"")
        answer = post(poster(), receiver.url)
        assert (answer.ok, answer.status) == (False, status)
        assert (len(receiver.came), len(other.came)) == (1, 0)


@pytest.mark.parametrize("status", [204, 201, 299])
def test_every_status_of_success_is_one(status):
    with receiving() as receiver:
        receiver.answer = lambda came: (status, {}, b"")
        assert post(poster(), receiver.url).ok


@pytest.mark.parametrize("status", [400, 404, 413, 429, 500, 503])
def test_a_failure_tells_what_the_receiver_said(status):
    with receiving() as receiver:
        receiver.answer = lambda came: (status, {}, b"unknown\r\n\x1b[31m node" + b"x" * 1000)
        answer = post(poster(), receiver.url)
    assert (answer.ok, answer.status) == (False, status)
    assert answer.error.startswith(f"the receiver answered {status}: unknown \N{REPLACEMENT CHARACTER}[31m nodexxx")
    assert len(answer.error) < TOLD + 40


# --- to whom


def test_the_connection_goes_to_the_judged_address_and_the_name_is_said():
    sent = []

    def answer(request):
        sent.append(request)
        return httpx2.Response(200)

    resolve = lambda host, port: [PUBLIC]  # noqa: E731
    it = poster(httpx2.MockTransport(answer), resolve=resolve)
    assert post(it, "https://receiver.example:8443/v2/poc-batches/Qwen%2FQwen3").ok
    assert str(sent[0].url) == f"https://{PUBLIC}:8443/v2/poc-batches/Qwen%2FQwen3/generated"
    assert sent[0].headers["Host"] == "receiver.example:8443"
    assert sent[0].extensions["sni_hostname"] == "receiver.example"


def test_a_name_that_moves_to_a_private_address_is_not_followed():
    with receiving() as receiver:
        answers = iter([["127.0.0.1"], ["127.0.0.1"], ["10.0.0.1"], ["127.0.0.1", "169.254.169.254"]])
        it = poster(resolve=lambda host, port: next(answers))
        url = f"http://receiver.example:{receiver.port}"
        assert [post(it, url).ok for _ in range(2)] == [True, True]
        assert "10.0.0.1, is a private address" in post(it, url).error
        assert "169.254.169.254, is a link-local address" in post(it, url).error
        assert len(receiver.came) == 2


def test_the_second_address_is_tried_where_the_first_does_not_listen():
    with receiving() as receiver:
        it = poster(resolve=lambda host, port: ["127.0.0.9", "127.0.0.1"])
        assert post(it, f"http://receiver.example:{receiver.port}").ok
        assert len(receiver.came) == 1


def test_a_receiver_that_is_not_there_is_an_answer():
    answer = post(poster(), f"http://127.0.0.1:{free_port()}")
    assert (answer.ok, answer.status) == (False, None)
    assert "cannot be reached" in answer.error


def test_localhost_is_reached_whichever_loopback_address_listens():
    with receiving() as receiver:
        assert post(poster(), f"http://localhost:{receiver.port}/pow").ok


# --- certificates


def test_the_certificate_must_name_the_host_and_not_the_address(tmp_path):
    server, client = certify("receiver.example", tmp_path)
    resolve = lambda host, port: ["127.0.0.1"]  # noqa: E731
    names = []
    server.sni_callback = lambda socket, name, context: names.append(name)
    with receiving(server) as receiver:
        it = poster(open_transport(client), resolve=resolve)
        assert post(it, f"https://receiver.example:{receiver.port}").ok
        assert names == ["receiver.example"]
        for host in ("other.example", "127.0.0.1"):
            answer = post(it, f"https://{host}:{receiver.port}")
            assert (answer.ok, answer.status) == (False, None)
            assert "certificate verify failed" in answer.error.lower()
        assert len(receiver.came) == 1


def test_two_names_at_one_address_share_no_connection(tmp_path):
    server, client = certify("receiver.example", tmp_path)
    with receiving(server) as receiver:
        receiver.answer = lambda came: (200, {"Connection": "keep-alive"}, b"")
        it = poster(open_transport(client), resolve=lambda host, port: ["127.0.0.1"])
        assert post(it, f"https://receiver.example:{receiver.port}").ok
        assert not post(it, f"https://other.example:{receiver.port}").ok
        assert len(receiver.came) == 1


def test_an_unknown_authority_is_not_trusted(tmp_path):
    server, _ = certify("receiver.example", tmp_path)
    with receiving(server) as receiver:
        answer = post(poster(resolve=lambda host, port: ["127.0.0.1"]), f"https://receiver.example:{receiver.port}")
        assert "certificate verify failed" in answer.error.lower()
        assert not receiver.came


# --- within what time


def swallow(connection):
    while connection.recv(65536):
        pass


def drip(first):
    def talk(connection):
        connection.recv(65536)
        connection.sendall(first)
        while True:
            connection.sendall(b"x")
            time.sleep(0.02)

    return talk


@pytest.mark.parametrize(
    "talk",
    [swallow, drip(b"HTTP/1.1 200 OK\r\nX-A: "), drip(b"HTTP/1.1 500 No\r\nContent-Length: 100000\r\n\r\n")],
    ids=["silent", "headers without end", "a body without end"],
)
def test_a_receiver_that_talks_slowly_is_cut_off(talk):
    with talking(talk) as port:
        began = time.monotonic()
        answer = post(poster(timeout_s=0.3), f"http://127.0.0.1:{port}")
        assert not answer.ok
        assert time.monotonic() - began < 5  # one byte each 20 ms would go on for minutes


def test_a_tls_greeting_without_end_is_cut_off():
    def talk(connection):
        connection.sendall(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc")  # a ServerHello of 16 KiB begins
        while True:
            connection.sendall(b"x")
            time.sleep(0.02)

    with talking(talk) as port:
        answer = post(poster(timeout_s=0.3), f"https://127.0.0.1:{port}")
        assert (answer.ok, answer.status) == (False, None)


def test_a_receiver_that_does_not_take_the_body_is_cut_off():
    with talking(lambda connection: time.sleep(2)) as port:
        answer = poster(timeout_s=0.3).post(f"http://127.0.0.1:{port}", "/generated", b"x" * 50_000_000, {})
        assert answer.error == "the receiver did not answer in time"


def test_of_a_long_answer_only_the_start_is_read():
    hung_up = threading.Event()

    def talk(connection):
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 500 No\r\nContent-Length: 1000000000\r\n\r\n" + b"y" * ANSWER_BYTES * 4)
        try:
            while True:
                connection.sendall(b"y" * 65536)
        except OSError:
            hung_up.set()

    with talking(talk) as port:
        answer = post(poster(), f"http://127.0.0.1:{port}")
        assert (answer.status, answer.error) == (500, "the receiver answered 500: " + "y" * TOLD)
        assert hung_up.wait(10)


@pytest.mark.parametrize(
    "said", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 999999 x\r\n\r\n", b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 200_000]
)
def test_what_is_not_http_is_a_failure(said):
    def talk(connection):
        connection.recv(65536)
        connection.sendall(said)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(65536)

    with talking(talk) as port:
        answer = post(poster(), f"http://127.0.0.1:{port}")
        assert (answer.ok, answer.status) == (False, None)


def test_a_close_cuts_what_runs_and_refuses_what_comes():
    reached = threading.Event()

    def talk(connection):
        connection.recv(65536)
        reached.set()
        connection.recv(65536)

    with talking(talk) as port:
        it = poster(timeout_s=60.0)
        answers = []
        thread = threading.Thread(target=lambda: answers.append(post(it, f"http://127.0.0.1:{port}")))
        thread.start()
        assert reached.wait(10)
        it.close()
        thread.join(10)
        assert not answers[0].ok
        assert "cut short" in post(it, f"http://127.0.0.1:{port}").error
