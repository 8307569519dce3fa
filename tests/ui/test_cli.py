"""The command line as a whole: light to start, one document, examples that work, pipes that may close."""

import json
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from ftw import __version__
from ftw.ui.cli import app
from ftw.ui.cli.output import Out, clean, plain
from tests.ui.conftest import Ftw


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from ftw.ui.cli import run; code = run(['--help'])\n"
        "print(code, [m for m in ('torch', 'transformers', 'numpy', 'safetensors') if m in sys.modules])"
    )
    assert python(code).splitlines()[-1] == "0 []"


def test_the_version_is_told(ftw: Ftw) -> None:
    ran = ftw("--version")
    assert (ran.code, ran.out) == (0, f"ftw {__version__}\n")


def test_without_a_verb_the_help_is_shown(ftw: Ftw) -> None:
    ran = ftw()
    assert ran.code == 2
    assert "ftw demo" in ran.err


def verbs() -> dict[str, str]:
    """Every verb with its help, those of groups within groups too."""
    return dict(leaves("", typer.main.get_command(app)))


def leaves(path: str, command: Any) -> Iterator[tuple[str, str]]:
    for name, inner in command.commands.items():
        if hasattr(inner, "commands"):
            yield from leaves(f"{path} {name}", inner)
        else:
            yield f"{path} {name}".strip(), inner.epilog or ""


def examples() -> list[str]:
    return [line.strip() for text in verbs().values() for line in text.splitlines() if line.strip().startswith("ftw ")]


@pytest.mark.parametrize("verb", verbs())
def test_every_verb_has_help_with_an_example_and_takes_json(ftw: Ftw, verb: str) -> None:
    ran = ftw(*verb.split(), "--help")
    assert ran.code == 0
    assert f"ftw {verb}" in ran.out.split("Examples:")[1]
    assert "--json" in ran.out


WITH_FILES = (
    "pack meld",
    "pack pull",
    "pack push",
    "pack fork",
    "pack lock",
    "pack verify",
    "pack diff",
    "lens train",
    "lens import",
    "lens export",
    "lens convert",
    "lens compare",
    "lens trunk",
    "pack build",
    "artifacts.json",
    "ftw sweep",
)
"""Examples that write files, or read what the one before them wrote: run where their rooms are tested."""
FAST = [line for line in examples() if not any(part in line for part in WITH_FILES) and line != "ftw demo"]


@pytest.mark.parametrize("example", FAST)
def test_every_example_of_the_help_works(ftw: Ftw, example: str) -> None:
    ran = ftw(*shlex.split(example)[1:])
    assert ran.code == 0, ran.err
    assert ran.out.strip()
    assert "\x1b" not in ran.out
    if "--json" in example:
        json.loads(ran.out)


@pytest.mark.parametrize("example", [one for one in FAST if "--json" not in one])
def test_every_verb_gives_one_json_document_and_nothing_else(ftw: Ftw, example: str) -> None:
    ran = ftw(*shlex.split(example)[1:], "--json")
    assert ran.code == 0, ran.err
    json.loads(ran.out)


def test_charts_in_a_pipe_fit_80_columns_and_have_no_colour(ftw: Ftw) -> None:
    ran = ftw("peek", "The capital of France is")
    assert max(map(len, ran.out.splitlines())) <= 80
    assert "\x1b" not in ran.out


def test_a_closed_pipe_ends_quietly() -> None:
    call = f"{shlex.quote(sys.executable)} -m ftw pack show; echo code $? >&2"
    ran = subprocess.run(
        ["bash", "-c", f"({call}) | head -n 1"], capture_output=True, text=True, check=False, timeout=200
    )
    assert len(ran.stdout.splitlines()) == 1
    assert ran.stderr.strip() == "code 141"


def test_json_holds_null_where_there_is_no_number() -> None:
    assert plain({"a": float("nan"), "b": (1, float("inf"))}) == {"a": None, "b": [1, None]}


def test_a_message_is_cleaned_to_one_line() -> None:
    assert clean("a\n  b\x07c") == "a b\N{REPLACEMENT CHARACTER}c"


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    assert Out().has_colour
    monkeypatch.setenv("NO_COLOR", "1")
    assert not Out().has_colour


def test_the_command_in_the_foot_can_be_typed_again(ftw: Ftw) -> None:
    ran = ftw("peek", "The capital of France is", "--top", "2")
    foot = " ".join(ran.out.split("\n\n")[-1].split())
    again = re.search(r"ftw peek .*$", foot)
    assert again is not None
    assert shlex.split(again[0]) == ["ftw", "peek", "The capital of France is", "--top", "2"]


def test_ctrl_c_in_mid_generation_keeps_the_text_and_ends_with_130() -> None:
    # where tests run in the background of a shell, children would inherit that SIGINT is ignored
    start = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    start += "from ftw.ui.cli import main; main(sys.argv[1:])"
    argv = [sys.executable, "-c", start, "watch", "Tell me a story about a storm.", "-n", "480", "-t", "4"]
    # a text this hot does not find its end by itself
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        before = [process.stdout.readline() for _ in range(3)]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=200)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert before[0].startswith("Tell me")
    assert before[2].strip()
    assert "Interrupted" in out
