"""The chart library inside the wheel: fetched by npm at exact versions, compared by SHA-256, with every notice.

    python -m tools.reports.vendor                # the recorded versions; fails where a hash does not hold
    python -m tools.reports.vendor d3=7.9.3       # another version, and its hash recorded

The rule of the file: nothing is edited. What npm gives is what ships, and its notices ship beside it.
"""

import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

VENDOR = Path(__file__).parents[2] / "src/ftw/ui/visualization/vendor"
NOT_BUNDLED = frozenset({"commander", "iconv-lite", "safer-buffer", "rw"})
"""Needed by d3-dsv's command line only; no line of them is in a browser build."""
ALLOWED = frozenset({"ISC", "MIT", "BSD-3-Clause", "Unlicense"})
BREAKS_A_PAGE = re.compile(r"</script|<!--", re.IGNORECASE)
"""What would end or hide a script inside a page."""


def main(argv: Sequence[str]) -> int:
    """Fetch, compare and write. Returns 1 where a recorded hash does not hold."""
    wanted = dict(one.split("=", 1) for one in argv)
    entries = json.loads((VENDOR / "versions.json").read_text(encoding="utf-8"))
    unknown = wanted.keys() - {entry["name"] for entry in entries}
    if unknown:
        raise SystemExit(f"not vendored: {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory() as folder:
        versions = [f"{entry['name']}@{wanted.get(entry['name'], entry['version'])}" for entry in entries]
        quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
        subprocess.run(["npm", "install", *quiet, "--save-exact", *versions], cwd=folder, check=True)
        modules = Path(folder) / "node_modules"
        for entry in entries:
            if not take(entry, modules, wanted):
                return 1
        (VENDOR / "LICENSES.txt").write_text(licences(modules), encoding="utf-8")
    (VENDOR / "versions.json").write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
    return 0


def take(entry: dict[str, str], modules: Path, wanted: Mapping[str, str]) -> bool:
    """Copy one build and record it. False where the recorded version no longer has the recorded hash."""
    package = modules / entry["name"]
    content = (package / entry["from"]).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if entry["name"] not in wanted and digest != entry["sha256"]:
        print(f"{entry['name']} {entry['version']}: got {digest}, recorded is {entry['sha256']}", file=sys.stderr)
        return False
    if BREAKS_A_PAGE.search(content.decode()):
        print(f"{entry['name']}: its build cannot stand inside a page", file=sys.stderr)
        return False
    entry["version"] = json.loads((package / "package.json").read_text(encoding="utf-8"))["version"]
    entry["sha256"] = digest
    (VENDOR / entry["file"]).write_bytes(content)
    print(f"{entry['name']} {entry['version']}: {len(content):,} bytes, sha256 {digest}")
    return True


def licences(modules: Path) -> str:
    """Every notice of what is bundled, equal ones once. Raises SystemExit for a licence that is not permissive."""
    holders: dict[str, list[str]] = {}
    for described in sorted([*modules.glob("*/package.json"), *modules.glob("@*/*/package.json")]):
        package = json.loads(described.read_text(encoding="utf-8"))
        if package["name"] in NOT_BUNDLED:
            continue
        if package["license"] not in ALLOWED:
            raise SystemExit(f"{package['name']} is under {package['license']}: not one of {sorted(ALLOWED)}")
        (notice,) = (file for file in described.parent.iterdir() if file.name.upper().startswith("LICEN"))
        name = f"{package['name']} {package['version']} ({package['license']})"
        holders.setdefault(notice.read_text(encoding="utf-8").strip(), []).append(name)
    rule = "-" * 72
    return "\n".join(f"{rule}\n{', '.join(names)}\n\n{text}\n" for text, names in holders.items())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
