"""Poc radius: the rate that a radius lets pass, or the radius of a rate, by exact theory."""

from rich.text import Text

from ftw.poc.radius import moments, radius_of, rate_of
from ftw.substrate.errors import ConfigError
from ftw.ui.cli.output import Out
from ftw.ui.visualization.figure import figure
from ftw.ui.visualization.palette import grey

RATES = (0.001, 0.01, 0.05, 0.10, 0.20, 0.50)
"""Rates whose radii are always shown, for scale."""


def run(out: Out, *, k: int, rate: float | None, radius: float | None) -> None:
    """Draw both numbers with a table for scale, or give the document. Raises ConfigError unless one is given."""
    if (rate is None) == (radius is None):
        raise ConfigError("give one of --rate and --radius, for example --rate 0.10: the other one follows from it")
    at, share = (radius_of(rate, k), rate) if rate is not None else (radius or 0.0, rate_of(radius or 0.0, k))
    mean, sd = moments(k)
    table = [(each, radius_of(each, k)) for each in RATES]
    rows = [Text("   rate   radius", grey())]
    rows += [Text(f"{100 * each:>5g} %   {its:.4f}") for each, its in table]
    out.show(
        figure(
            f"A radius of {at:.4f} lets {100 * share:.4g} % of all directions in {k} dimensions pass",
            rows,
            f"chord distances of uniform unit vectors: mean {mean:.4f}, sd {sd:.4f}",
            "exact, d²/4 is Beta((k-1)/2, (k-1)/2)",
            out.command,
        )
    )
    out.document(
        {
            "command": "poc radius",
            "k": k,
            "rate": share,
            "radius": at,
            "distance": {"mean": mean, "sd": sd},
            "table": [{"rate": each, "radius": its} for each, its in table],
        }
    )
