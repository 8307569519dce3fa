"""Opening a report in headless Chromium and asking its figures what they show."""

import hashlib
import json
import re
import shutil
import subprocess
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
GROUNDS = {False: "rgb(247, 245, 241)", True: "rgb(16, 18, 20)"}
"""The page's ground, light and dark."""
WATCH, PROBE = (
    (Path(__file__).parents[1] / f"data/page/{name}.js").read_text(encoding="utf-8") for name in ("watch", "probe")
)
"""One collects what the browser complains about, the other looks at every figure and leaves what it found as JSON."""


def probed(html: str) -> str:
    """A page with the two scripts, which its policy admits."""
    for script in (WATCH, PROBE):
        digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
        html = html.replace("script-src ", f"script-src 'sha256-{digest}' ", 1)
    return html.replace("<title>", f"<script>{WATCH}</script><title>", 1).replace(
        "</body>", f"<script>{PROBE}</script></body>"
    )


def browse(html: str, folder: Path, width: int, *, dark: bool) -> dict[str, Any]:
    """What the probe found in the page at this width and theme. Skips the test where there is no browser."""
    if CHROMIUM is None:
        pytest.skip("no chromium here to look at the page with")
    file = folder / "r.html"
    file.write_text(probed(html), encoding="utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    command += [f"--blink-settings=preferredColorScheme={0 if dark else 1}", f"--window-size={width},1600"]
    command += ["--virtual-time-budget=20000", "--dump-dom", file.as_uri()]
    dump = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    found = re.search(r'<pre id="probe">(.*?)</pre>', dump, re.DOTALL)
    assert found is not None, dump[-500:]
    text = found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&nbsp;", "\u00a0").replace("&amp;", "&")
    probe: dict[str, Any] = json.loads(text)
    return {**probe, "theme": GROUNDS[dark]}


def colour(css: str) -> str:
    """`rgb(1, 2, 3)` as `#010203`."""
    return "#" + "".join(f"{int(part):02x}" for part in re.findall(r"\d+", css)[:3])
