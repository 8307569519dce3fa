"""Who may ask: the token beyond loopback, the names on loopback, and a log that holds no secrets."""

import logging
from pathlib import Path

import pytest

from ftw.substrate.config import Settings
from ftw.substrate.errors import ConfigError
from ftw.ui.api.gate import Access, hostname
from ftw.ui.service import access_of, is_loopback
from tests.ui.api.conftest import POW, PROXY, Open, Server, body

TOKEN = "a-token-of-some-length"
GUARDED = [
    ("GET", f"{POW}/status"),
    ("POST", f"{POW}/init/generate"),
    ("POST", f"{POW}/stop"),
    ("GET", f"{PROXY}/status"),
    ("GET", f"{POW}/artifacts"),
    ("GET", "/v1/models"),
    ("POST", "/v1/chat/completions"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("GET", "/nothing"),
]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_without_the_token_only_health_answers(open_server: Open) -> None:
    client = open_server(Access(TOKEN)).client
    assert client.get("/health").status_code == 200
    for method, path in GUARDED:
        for headers in ({}, bearer("wrong"), bearer(""), {"Authorization": TOKEN}, {"Authorization": f"Basic {TOKEN}"}):
            answer = client.request(method, path, headers=headers)
            assert answer.status_code == 401, path
            assert answer.headers["www-authenticate"] == "Bearer"
            assert TOKEN not in answer.text
    refused = client.get("/v1/models").json()["error"]
    assert refused["code"] == "invalid_api_key"


def test_with_the_token_everything_does(open_server: Open) -> None:
    client = open_server(Access(TOKEN)).client
    assert client.get(f"{POW}/status", headers=bearer(TOKEN)).status_code == 200
    assert client.get("/v1/models", headers={"Authorization": f"bearer {TOKEN}"}).status_code == 200
    assert client.get("/metrics", headers=bearer(TOKEN)).status_code == 200


def test_a_server_on_loopback_answers_to_its_own_names_only(shared: Server) -> None:
    for name in ("localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]:8000", "localhost."):
        assert shared.client.get("/health", headers={"Host": name}).status_code == 200, name
    for name in ("evil.example", "localhost.evil.example:8000", "127.0.0.1.nip.io", "10.0.0.1", ""):
        answer = shared.client.get(f"{POW}/status", headers={"Host": name})
        assert answer.status_code == 421, name


def test_pages_of_other_sites_are_refused_and_own_ones_are_not(shared: Server) -> None:
    for origin in ("https://evil.example", "null", "http://localhost.evil.example"):
        answer = shared.client.post(f"{POW}/stop", headers={"Origin": origin})
        assert answer.status_code == 403, origin
    assert shared.client.post(f"{POW}/stop", headers={"Origin": "http://localhost:3000"}).status_code == 200


def test_the_log_has_one_line_per_request_and_no_body_query_or_token(
    open_server: Open, caplog: pytest.LogCaptureFixture
) -> None:
    server = open_server(Access(TOKEN))
    with caplog.at_level(logging.DEBUG, logger="ftw"):
        server.client.post(
            f"{POW}/generate?secret=1", json=body(public_key="my-key", nonces=[1]), headers=bearer(TOKEN)
        )
        server.client.get("/a%0d%0aINJECTED", headers=bearer(TOKEN))
    lines = [record.getMessage() for record in caplog.records if record.name == "ftw.access"]
    assert len(lines) == 2
    assert f"POST {POW}/generate 200" in lines[0]
    assert "\r" not in lines[1]
    for secret in ("my-key", "secret", TOKEN):
        assert secret not in caplog.text


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]", "127.1.2.3", "LOCALHOST"])
def test_loopback_is_known(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", "localhost.example.org"])
def test_what_is_reachable_from_elsewhere_is_known(host: str) -> None:
    assert not is_loopback(host)


def test_hosts_are_taken_from_headers() -> None:
    assert [hostname(text) for text in ("a:1", "A", "[::1]:8", "[::1]", "")] == ["a", "a", "::1", "::1", ""]


def test_a_server_beyond_loopback_has_a_token_in_any_case(tmp_path: Path) -> None:
    none = Settings()
    first, made = access_of("0.0.0.0", None, none)
    assert made
    assert first.hosts is None
    assert first.token is not None
    assert len(first.token) >= 32
    assert access_of("0.0.0.0", None, none)[0].token != first.token
    assert access_of("0.0.0.0", None, Settings(token=TOKEN)) == (Access(TOKEN), False)
    here, made = access_of("127.0.0.1", None, none)
    assert (here.token, made) == (None, False)
    assert here.hosts == ("localhost", "127.0.0.1", "::1")
    assert access_of("127.0.0.1", None, Settings(token=TOKEN))[0].token == TOKEN
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}-from-file\n")
    assert access_of("0.0.0.0", file, Settings(token=TOKEN))[0].token == f"{TOKEN}-from-file"


def test_a_bad_token_is_refused_without_being_shown(tmp_path: Path) -> None:
    for bad in ("short", "with spaces in the middle of it", "ümläütsümläütsümläüts"):
        with pytest.raises(ConfigError, match="the token is no good one") as error:
            access_of("0.0.0.0", None, Settings(token=bad))
        assert bad not in str(error.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        access_of("0.0.0.0", tmp_path / "none", Settings())
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(ConfigError, match="is empty"):
        access_of("0.0.0.0", tmp_path / "empty", Settings())
    assert TOKEN not in repr(Settings(token=TOKEN))
