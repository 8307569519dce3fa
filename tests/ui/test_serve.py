"""`ftw serve` as a command: what it tells, what it refuses before it listens."""

from pathlib import Path

import pytest

from ftw.substrate.config import PocSettings
from ftw.substrate.errors import ConfigError
from ftw.substrate.reference import tiny
from ftw.ui.api.gate import Access
from ftw.ui.service import build
from ftw.ui.verbs.serve import moved
from tests.ui.conftest import Ftw

SERVE = ("serve", "--model", "tiny", "--port", "0", "--seconds", "0")


def test_it_tells_where_it_listens_what_it_proves_and_how_to_stop_it(ftw: Ftw) -> None:
    ran = ftw(*SERVE)
    assert ran.code == 0
    assert "Serving at http://127.0.0.1:" in ran.err
    assert "Ctrl-C ends it" in ran.err
    assert "no token is asked for" in ran.err
    assert "Proofs by artifact-k12/1: seq_len 256, k_dim 12, 8 nonces per pass" in ran.err
    assert "chat goes first" in ran.err
    assert ran.out.startswith("Served 0 artifacts and 0 tokens")


def test_beyond_loopback_a_token_is_made_for_the_run_and_told_once(ftw: Ftw) -> None:
    tokens = []
    for _ in range(2):
        ran = ftw(*SERVE, "--host", "0.0.0.0", "--json")
        assert ran.document["artifacts"] == 0
        lines = [line for line in ran.err.splitlines() if line.startswith("Token")]
        assert len(lines) == 1
        tokens.append(lines[0].split()[-1])
    assert tokens[0] != tokens[1]
    assert min(map(len, tokens)) >= 32


def test_a_token_of_one_s_own_is_not_shown(ftw: Ftw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTW_TOKEN", "a-token-of-some-length")
    ran = ftw(*SERVE, "--host", "0.0.0.0")
    assert ran.code == 0
    assert "a token is asked for" in ran.err
    assert "a-token-of-some-length" not in ran.err + ran.out
    (tmp_path / "token").write_text("x")
    assert "no good one" in ftw(*SERVE, "--token-file", str(tmp_path / "token")).failed(2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--port", "70000"), "--port is 70000"),
        (("--host", "no such host"), "no such host"),
        (("--host", "192.0.2.1"), "give an address of this machine"),
        (("--seconds", "-1"), "--seconds is -1"),
    ],
)
def test_what_cannot_be_served_is_refused(ftw: Ftw, arguments: tuple[str, ...], said: str) -> None:
    assert said in ftw(*SERVE, *arguments).failed(2)


def test_a_setting_with_a_typing_error_is_refused_by_its_nearest_name(
    ftw: Ftw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POC_SEQ_LENGTH", "128")
    assert "POC_SEQ_LEN" in ftw(*SERVE).failed(2)


def test_a_length_that_the_model_does_not_have_is_refused(ftw: Ftw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POC_SEQ_LEN", "100000")
    assert "tiny takes 256 at most" in ftw(*SERVE).failed(2)


def test_a_service_needs_its_paths() -> None:
    with pytest.raises(ConfigError, match="need paths"):
        build(tiny(), PocSettings(), Access(), allow_loopback=True)


def test_another_journal_takes_the_key_along_unless_that_has_its_own_place() -> None:
    usual = moved(PocSettings.from_env({"POC_JOURNAL": "/a/poc.sqlite"}), Path("/b/other.sqlite"))
    assert (usual.journal, usual.signing_key) == (Path("/b/other.sqlite"), Path("/b/other.key.pem"))
    own = PocSettings.from_env({"POC_JOURNAL": "/a/poc.sqlite", "POC_SIGNING_KEY": "/keys/one.pem"})
    assert moved(own, Path("/b/other.sqlite")).signing_key == Path("/keys/one.pem")
