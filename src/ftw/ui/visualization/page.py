"""A page that stands alone: style, chart library and scripts inside it, and a policy that lets nothing else run.

The rule of the file: a page loads nothing. Each script runs because its hash is in the policy; data is never a script.
"""

import hashlib
import json
import math
from base64 import b64encode
from dataclasses import asdict
from html import escape
from importlib.resources import files

from ftw.ui.visualization.palette import DARK, LIGHT
from ftw.ui.visualization.plots import Picture

LIBRARY = ("vendor/d3.min.js", "vendor/plot.umd.min.js")
"""Observable Plot and what it stands on, as released; `vendor/versions.json` says which."""
PLOT_STYLE = "sha256-jSYQUrW7J0b3jPqhZP9C2Xh1PyJKHKXd4s0fpGGKrww="
"""The hash of the one `<style>` that Plot puts into each of its pictures; a browser names it where it is another."""


def page(title: str, body: str) -> str:
    """The HTML of a page around this body. Its figures are drawn when it is opened."""
    scripts = [_library(), *(resource(name) for name in ("words.js", "draw.js", "page.js"))]
    style = stylesheet()
    runs = " ".join(f"'{_hash(one)}'" for one in scripts)
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; "
        f"style-src '{_hash(style)}' '{PLOT_STYLE}'; script-src {runs}"
    )
    tail = "".join(f"<script>{one}</script>\n" for one in scripts)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{style}</style>\n</head>\n<body>\n<main>{body}</main>\n"
        f"{tail}</body>\n</html>\n"
    )


def stylesheet() -> str:
    """The style of every page: tokens of both themes, then the rules. Paper is light."""
    dark = f"@media screen and (prefers-color-scheme:dark){{:root{{color-scheme:dark;{DARK.css()}}}}}"
    return f":root{{color-scheme:light;{LIGHT.css()}}}{dark}\n{resource('page.css')}"


def resource(name: str) -> str:
    """A file beside this one, as text."""
    return (files("ftw") / "ui" / "visualization" / name).read_text(encoding="utf-8")


def embed(picture: Picture) -> str:
    """The picture as JSON that `draw.js` draws, safe inside a `<script>`: ASCII, without any `<`, `>` or `&`."""
    document = {"kind": type(picture).__name__.lower(), **asdict(picture)}
    if document["kind"] == "chart":
        document["marks"] = [
            {"kind": type(mark).__name__.lower(), **fields}
            for mark, fields in zip(picture.marks, document["marks"], strict=True)  # type: ignore[union-attr]
        ]
    if document["kind"] == "heat":
        document["span"] = picture.span  # type: ignore[union-attr]
        for cells in (document, *document["more"]):
            cells["values"] = [[None if math.isnan(v) else v for v in row] for row in cells["values"]]
    text = json.dumps(document, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _library() -> str:
    """The chart library with the notices that every copy of it carries."""
    return "\n".join([f"/*\n{resource('vendor/LICENSES.txt')}*/", *(resource(name) for name in LIBRARY)])


def _hash(text: str) -> str:
    """The source of a policy that admits exactly this text."""
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
