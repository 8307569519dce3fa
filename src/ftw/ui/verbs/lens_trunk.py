"""Lens trunk: one projection that all lenses of a pack read instead of the state, with what it costs and saves."""

import shutil
import time
from pathlib import Path
from typing import Any

from rich.text import Text

from ftw.hat.classifiers.index import read_info
from ftw.hat.classifiers.packfile import require_fresh
from ftw.hat.classifiers.trunk import TRUNK, save_trunks
from ftw.map.training.trunks import Trunks, make_trunks
from ftw.ui.app import lens_folder, open_concepts, open_model
from ftw.ui.cli.output import Out
from ftw.ui.visualization.figure import count, facts, foot, size, title


def run_trunk(
    out: Out,
    pack: str,
    *,
    rank: int,
    folder: Path | None = None,
    model: str | None = None,
    concepts: str | None = None,
    prompts: int | None = None,
    seed: int = 0,
) -> None:
    """Fit, measure, and keep the trunk beside the pack, or with a copy of it in `folder`.

    Raises StorageError before any work where `folder` is not new or empty, and what `make_trunks` raises.
    """
    source = lens_folder(pack)
    if folder is not None:
        require_fresh(folder)
    info = read_info(source)
    known = open_concepts(concepts or info.concept_pack.name)
    opened = open_model(model, out)
    with out.bar("Reading states") as bar:
        made = make_trunks(opened, source, known, rank, clock=time.monotonic, prompts=prompts, seed=seed, progress=bar)
    if folder is not None:
        for file in sorted(source.iterdir()):
            if file.is_file() and not file.name.startswith("."):
                shutil.copyfile(file, folder / file.name)
    save_trunks(folder or source, made.by_block)
    draw(out, made, folder or source, f"{opened.name} {opened.fingerprint[:8]}")
    out.document({"command": "lens trunk", "folder": folder or source, "rank": rank, **_record(made)})


def draw(out: Out, made: Trunks, folder: Path, model: str) -> None:
    """The claim, what is lost, what is saved."""
    worst, lost = made.worst, max(one.loss for one in made.reports.values())
    rows = {
        f"macro AUROC, block {block}": f"{one.auroc:.4f} as they are, {one.auroc_on_trunk:.4f} on the trunk"
        for block, one in made.reports.items()
    }
    rows |= {
        "loses most": f"{made.worst_term}, {worst.worst:.3f}",
        "a token reads": f"{size(made.bytes_on_trunk)} instead of {size(made.bytes_full)}",
        "a token takes": f"{made.ms_on_trunk:.3g} ms instead of {made.ms_full:.3g} ms, every lens in bf16",
        "written to": str(folder / TRUNK),
    }
    share = made.ms_full / made.ms_on_trunk
    change = f"lose {lost:.4f}" if lost >= 0 else f"gain {-lost:.4f}"
    out.show(
        title(
            f"On a trunk of {worst.rank} of {worst.d_model}, {count(made.lenses, 'lens', 'lenses')} {change} of "
            f"macro AUROC and read a token {share:.1f} times as fast"
        ),
        Text(),
        facts(rows),
        Text(),
        foot(
            f"fitted on {count(made.fitted, 'state')}, measured on {count(made.measured, 'prompt')} of other words and "
            "templates",
            f"pack {made.info.name} {made.info.version}",
            model,
            out.command,
        ),
        sep="\n",
    )


def _record(made: Trunks) -> dict[str, Any]:
    return {
        "lenses": made.lenses,
        "blocks": [
            {
                "block": block,
                "auroc": one.auroc,
                "auroc_on_trunk": one.auroc_on_trunk,
                "lost": one.loss,
                "worst": one.worst,
                "logit_error": one.logit_error,
            }
            for block, one in made.reports.items()
        ],
        "worst_term": made.worst_term,
        "fitted": made.fitted,
        "measured": made.measured,
        "bytes": {"full": made.bytes_full, "trunk": made.bytes_on_trunk},
        "ms_per_token": {"full": made.ms_full, "trunk": made.ms_on_trunk},
    }
