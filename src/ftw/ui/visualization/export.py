"""Pictures of what a terminal shows: an SVG that stands alone, or plain text.

The rule of the file: a picture loads nothing from elsewhere, no font and no script.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

from rich.console import Console, RenderableType

from ftw.substrate.errors import ConfigError, StorageError
from ftw.ui.visualization.palette import GROUND, INK, LINE, theme

WIDTH = 80
SVG = (
    """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="terminal output">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, "SF Mono", "JetBrains Mono", Menlo, Consolas, monospace;
  font-size: {char_height}px; line-height: {line_height}px; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
<rect x="0.5" y="0.5" width="{width}" height="{height}" rx="10" fill="GROUND" stroke="LINE"/>
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix" fill="INK">
{matrix}
</g>
</g>
</svg>
""".replace("GROUND", GROUND)
    .replace("INK", INK)
    .replace("LINE", LINE)
)


@runtime_checkable
class Picture(Protocol):
    """What can be drawn at a width, with or without colours."""

    def __call__(self, width: int, *, colour: bool) -> RenderableType: ...


def check_target(file: Path) -> Path:
    """`file`, if a picture can be written there. Raises ConfigError or StorageError, before any work is done."""
    if file.suffix.lower() not in FORMATS:
        raise ConfigError(f"--export {file}: a picture is .svg or .txt, so give the file one of these endings")
    if not file.parent.is_dir():
        raise StorageError(f"--export {file}: there is no folder {file.parent}; make it first")
    return file


def write_picture(file: Path, draw: Picture, *, title: str) -> None:
    """Draw into `file`, an SVG or plain text by its ending. OSError where the medium does not take it."""
    text = FORMATS[file.suffix.lower()](draw, title)
    file.write_text(text, encoding="utf-8")


def _svg(draw: Picture, title: str) -> str:
    console = _console(colours=True)
    console.print(draw(WIDTH, colour=True))
    return console.export_svg(title=title, theme=theme(), code_format=SVG, unique_id="ftw")


def _txt(draw: Picture, title: str) -> str:
    console = _console(colours=False)
    console.print(draw(WIDTH, colour=False))
    return "".join(f"{line.rstrip()}\n" for line in console.export_text().splitlines())


def _console(*, colours: bool) -> Console:
    return Console(
        record=True,
        file=io.StringIO(),
        width=WIDTH,
        highlight=False,
        emoji=False,
        markup=False,
        force_terminal=colours,
        color_system="truecolor" if colours else None,
        _environ={},
    )


FORMATS: dict[str, Callable[[Picture, str], str]] = {".svg": _svg, ".txt": _txt}
