"""The colours of terminal and page: six concept hues, the inks, the grounds, and how strength becomes a tint.

The rule of the file: a concept's hue comes from its root in the hierarchy, the same in every run.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from rich.style import Style
from rich.terminal_theme import TerminalTheme

HUES = ("#6cb6f0", "#f0b35a", "#5fd0a0", "#e091d3", "#aa9cf5", "#cfa77d")
"""The six hues on a dark ground. Each keeps 4.5:1 on it."""
GROUND, SURFACE, INK, QUIET, LINE, ALARM = "#101214", "#171a1d", "#ebe8e2", "#a2a9b3", "#2b3036", "#ff8a80"
ACCENT = "#5cc8c3"
TINT = 0.42
"""How much of the hue a full reading mixes into the ground behind its word."""
STRONG = 0.5
"""From this reading on the word is underlined as well, so that it shows without colour."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """One theme of a page. Every ink keeps 4.5:1 on every ground."""

    page: str
    surface: str
    raised: str
    ink: str
    quiet: str
    line: str
    accent: str
    focus: str
    alarm: str
    hues: tuple[str, ...]

    def css(self) -> str:
        """The tokens as custom properties: `--page`, …, and the hues as `--c1` to `--c6`."""
        names = ("page", "surface", "raised", "ink", "quiet", "line", "accent", "focus", "alarm")
        pairs = [(name, str(getattr(self, name))) for name in names]
        pairs += [(f"c{place}", hue) for place, hue in enumerate(self.hues, 1)]
        return "".join(f"--{name}:{value};" for name, value in pairs)


LIGHT = Tokens(
    page="#f7f5f1",
    surface="#ffffff",
    raised="#fbfaf7",
    ink="#1b1d21",
    quiet="#565c66",
    line="#e2ded6",
    accent="#0b6466",
    focus="#0b57d0",
    alarm="#a8201a",
    hues=("#0b5f9e", "#9a5b00", "#00734f", "#8a2f7b", "#5b4bb3", "#7a5a3a"),
)
DARK = Tokens(
    page=GROUND,
    surface=SURFACE,
    raised="#1c2024",
    ink=INK,
    quiet=QUIET,
    line=LINE,
    accent=ACCENT,
    focus="#8ab4f8",
    alarm=ALARM,
    hues=HUES,
)


def rgb(colour: str) -> tuple[int, int, int]:
    """The three channels of `#rrggbb`, 0..255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def mix(colour: str, ground: str, share: float) -> str:
    """`share` of `colour` on `ground`, channel by channel, as `#rrggbb`."""
    channels = zip(rgb(colour), rgb(ground), strict=True)
    return "#" + "".join(f"{round(a * share + b * (1 - share)):02x}" for a, b in channels)


def contrast(ink: str, ground: str) -> float:
    """The WCAG 2 contrast ratio of two colours, 1 to 21."""
    light, dark = sorted((_luminance(ink), _luminance(ground)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in rgb(colour))]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@dataclass
class Palette:
    """Hues for one page. At most six roots have a hue on it; a root whose hue is taken is drawn in grey."""

    roots: Mapping[str, int]
    """Each root's hue, 0..5."""
    root_of: Mapping[str, str]
    """Each concept's root."""
    _taken: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, root_of: Mapping[str, str]) -> "Palette":
        """Hues for the concepts of a pack: roots by size, then by name, take the six in turn."""
        size: dict[str, int] = {}
        for root in root_of.values():
            size[root] = size.get(root, 0) + 1
        order = sorted(size, key=lambda root: (-size[root], root))
        return cls({root: place % len(HUES) for place, root in enumerate(order)}, dict(root_of))

    def hue(self, concept: str) -> str:
        """The colour of a concept: its root's hue, or the grey ink where another root on this page has that hue."""
        root = self.root_of.get(concept)
        if root is None or root not in self.roots:
            return QUIET
        place = self.roots[root]
        return HUES[place] if self._taken.setdefault(place, root) == root else QUIET

    def word(self, concept: str, p: float) -> Style:
        """How a word is drawn whose state reads `concept` at `p`: tint behind it, and a line under a strong one."""
        hue = self.hue(concept)
        return Style(color=INK, bgcolor=mix(hue, GROUND, TINT * min(max(p, 0.0), 1.0)), underline=p >= STRONG)

    def name(self, concept: str) -> Style:
        """How a concept's name is drawn."""
        return Style(color=self.hue(concept))


def grey() -> Style:
    """Second ink: units, provenance, what is usual."""
    return Style(dim=True)


def theme() -> TerminalTheme:
    """The ground and inks of exported pictures."""
    ansi = [GROUND, ALARM, HUES[2], HUES[1], HUES[0], HUES[3], ACCENT, QUIET]
    return TerminalTheme(rgb(GROUND), rgb(INK), [rgb(c) for c in ansi], [rgb(c) for c in (QUIET, *ansi[1:7], INK)])
