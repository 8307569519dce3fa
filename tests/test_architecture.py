"""docs/architecture.md is the map of the code: what it names exists, and what exists it names."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src/ftw"


def mapped() -> set[str]:
    """Every path in the first column of the map's tables, relative to src/ftw."""
    page = (ROOT / "docs/architecture.md").read_text()
    rooms = page.split("## The rooms")[1].split("## Who may import whom")[0]
    return set(re.findall(r"^\| `([\w/.-]+)` \|", rooms, re.MULTILINE))


def present() -> set[str]:
    files = (path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))
    return {name for name in files if not name.endswith("__init__.py")}


def test_every_file_stands_on_the_map() -> None:
    assert present() - mapped() == set()


def test_everything_on_the_map_exists() -> None:
    assert {name for name in mapped() if not (SOURCE / name).exists()} == set()
