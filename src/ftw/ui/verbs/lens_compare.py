"""Lens compare: two packs of the same concepts on the same model, side by side."""

from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from ftw.hat.classifiers.index import read_info
from ftw.map.training.compare import Comparison, Side, compare_packs
from ftw.ui.app import lens_folder, open_concepts, open_model
from ftw.ui.cli.output import Out
from ftw.ui.visualization.figure import count, foot, title
from ftw.ui.visualization.lens_compare import between, page_of, reading_of
from ftw.ui.visualization.palette import grey
from ftw.ui.visualization.plots import shown
from ftw.ui.visualization.report import check_target

SHOWN = 10
"""Lenses that are named."""


def run_compare(
    out: Out,
    a: str,
    b: str,
    *,
    model: str | None = None,
    concepts: str | None = None,
    html: Path | None = None,
    prompts: int | None = None,
    seed: int = 0,
) -> None:
    """Compare, draw, or give the document. Raises what `compare_packs` raises."""
    folders = lens_folder(a), lens_folder(b)
    if html is not None:
        check_target(html)
    info = read_info(folders[0])
    known = open_concepts(concepts or info.concept_pack.name)
    opened = open_model(model, out)
    with out.bar("Comparing") as progress:
        found = compare_packs(opened, *folders, known, prompts=prompts, seed=seed, progress=progress)
    draw(out, found, opened.name, opened.fingerprint)
    if html is not None:
        page_of(found, out.command, seed).write(html)
        out.show(Text(), foot(f"report: {html}"), sep="\n")
    out.document({"command": "lens compare", **_record(found)})


def draw(out: Out, found: Comparison, model: str, fingerprint: str) -> None:
    """The claim, both packs, agreement, what changed most."""
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_row(Text("pack", grey()), *(Text(name, grey()) for name in ("lenses", "MB", "macro AUROC", "ECE")))
    for name, side in (("A", found.a), ("B", found.b)):
        called = f"{name} {side.info.name} {side.info.version}"
        table.add_row(called, str(side.lenses), shown(side.megabytes), f"{side.auroc:.4f}", f"{side.ece:.4f}")
    said = found.agreement
    rows = [
        f"B less A                 {between(found.macro)}",
        f"same ten highest         {shown(said.top10_same, percent=True)} of {said.states} states; "
        f"{shown(said.top10_overlap, percent=True)} of the ten on average",
        f"same highest             {shown(said.first_same, percent=True)} of states",
        f"readings in both         {shown(said.readings_both, percent=True)} of {said.readings} above threshold in one",
        f"probabilities differ by  {said.mean:.2g} on average, {said.largest:.2g} at most",
    ]
    out.show(title(reading_of(found)), Text(), table, Text(), *map(Text, rows), Text(), sep="\n")
    sure = [one for one in found.lenses if one.is_sure][:SHOWN]
    if sure:
        out.show(Text(f"{'changed most':<26}{'A':>7}{'B':>7}   B less A", grey()))
    for one in sure:
        out.show(Text(f"{one.term[:25]:<26}{one.a:>7.3f}{one.b:>7.3f}   {between(one.difference)}", no_wrap=True))
    out.show(
        Text() if sure else foot("no lens differs by more than chance"),
        foot(
            f"{count(found.terms, 'concept')} in both",
            f"{found.prompts} prompts of {found.synsets} synsets, templates held out",
            "intervals 95 %, over synsets, paired",
            f"{model} {fingerprint[:8]}",
            out.command,
        ),
        sep="\n",
    )


def _record(found: Comparison) -> dict[str, Any]:
    def side(of: Side) -> dict[str, Any]:
        return {
            "name": of.info.name,
            "version": of.info.version,
            "lenses": of.lenses,
            "megabytes": of.megabytes,
            "auroc": of.auroc,
            "ece": of.ece,
            "only": of.only,
        }

    return {
        "a": side(found.a),
        "b": side(found.b),
        "terms": found.terms,
        "prompts": found.prompts,
        "synsets": found.synsets,
        "macro": found.macro,
        "agreement": found.agreement,
        "lenses": found.lenses,
    }
