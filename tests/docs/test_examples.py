"""The pages show what the program prints: every example in them is run."""

from pathlib import Path

import pytest

from ftw.ui.cli import run
from tools.docs.examples import Example, desk, examples, refresh, shown

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FOUND = [
    pytest.param(page, example, id=f"{page.name}-{number}")
    for page in PAGES
    for number, example in enumerate(examples(page.read_text(encoding="utf-8")))
]


@pytest.fixture(scope="module")
def desks(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Path]:
    """A folder per page, in which its examples are run in order: a later one may read what an earlier one wrote."""
    return {page: desk(tmp_path_factory.mktemp(page.stem)) for page in PAGES}


@pytest.mark.parametrize(("page", "example"), FOUND)
def test_an_example_runs_and_its_stable_line_is_true(
    page: Path,
    example: Example,
    desks: dict[Path, Path],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(desks[page])
    monkeypatch.setenv("FTW_PACKS_DIR", str(desks[page] / "packs"))
    code = run(example.argv)
    out, err = capfd.readouterr()
    assert code == 0, err
    assert out.strip()
    if example.is_stable:
        assert out.splitlines()[0].rstrip() == example.output.splitlines()[0]


def test_the_readme_has_examples() -> None:
    assert len(examples((ROOT / "README.md").read_text(encoding="utf-8"))) >= 5


def test_pictures_of_the_pages_exist() -> None:
    import re

    for page in PAGES:
        for target in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).is_file(), f"{page.name}: {target}"


PAGE = """\
Text.

```console stable
$ ftw one "a b"
first
second
$ ftw two
third
```

```console
$ ftw three
```
"""


def test_examples_are_found_with_their_output() -> None:
    first, second, third = examples(PAGE)
    assert first == Example('ftw one "a b"', "first\nsecond\n", True)
    assert first.argv == ["one", "a b"]
    assert second.output == "third\n"
    assert not third.is_stable
    assert third.output == ""


def test_an_example_of_another_program_is_an_error() -> None:
    with pytest.raises(ValueError, match="must be an ftw command: rm -r x"):
        _ = Example("rm -r x", "", False).argv


def test_refreshing_replaces_the_output_and_nothing_else() -> None:
    made = refresh(PAGE, lambda argv: f"new {' '.join(argv)}  \n")
    assert made.startswith('Text.\n\n```console stable\n$ ftw one "a b"\nnew one a b\n$ ftw two\nnew two\n```\n')
    assert refresh(made, lambda argv: f"new {' '.join(argv)}") == made


def test_long_output_is_cut_with_a_sign() -> None:
    assert shown("\n".join("abc" for _ in range(99))).splitlines()[-2:] == ["abc", "…"]
