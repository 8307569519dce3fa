"""Audit: every audit of a run, in the catalogue's order, and the guidance that follows from them.

The rule of the file: an audit that cannot be made says why. None is left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from ftw.substrate.errors import UsageError
from ftw.sweep.audits import again, agreement, artefact, gates, health, learned, norm_views, norms, positions
from ftw.sweep.audits.catalogue import CATALOGUE
from ftw.sweep.audits.finding import Finding, missing
from ftw.sweep.audits.grid import Grids
from ftw.sweep.audits.guidance import Guidance, guide
from ftw.sweep.audits.states import Ends
from ftw.sweep.milestones import Milestones, Thresholds
from ftw.sweep.milestones.grid import LOGIT
from ftw.sweep.run import Sweep
from ftw.sweep.shelf import is_norm_view
from ftw.sweep.table import SweepTable

SAMPLE = 8
"""Prompts that are run again, at most, evenly spread over those with an onset."""
LOOKED_AT = 64
"""Prompts that a learned lens is judged on, at most."""


@dataclass(frozen=True)
class Audit:
    """Everything that the audits of a run found."""

    findings: tuple[Finding, ...]
    """One for each entry of the catalogue, in its order; of those about learned lenses one for each lens."""
    guidance: Guidance

    def __getitem__(self, name: str) -> Finding:
        """A finding by its name, of several the first lens's. Raises UsageError for one that there is not."""
        for finding in self.findings:
            if finding.name == name:
                return finding
        raise UsageError(f"there is no audit {name!r}: use {', '.join(CATALOGUE)}")

    def document(self) -> dict[str, Any]:
        """The block `audit` of a run's document; the block `guidance` is `guidance.document()`."""
        return {"findings": [finding.document() for finding in self.findings]}


def of(
    sweep: Sweep | None,
    table: SweepTable,
    found: Mapping[tuple[int, str], Milestones] | None = None,
    thresholds: Thresholds | None = None,
    *,
    heldout: Float[Tensor, "layer row d_model"] | None = None,
    sample: int = SAMPLE,
) -> Audit:
    """Every audit of a table.

    `sweep` made the table; without it (a run that is read from disk) audits that need the model say `not_asked`.
    `found` are its milestones, made anew where they are not given. `heldout` are states of held-out text at layers 0 to
    n, for temperatures.
    Raises UsageError where the sweep has other lenses than the table, or `sample` is not positive, and what
    `milestones.of` raises.
    """
    _check(sweep, table, sample)
    thresholds = thresholds or Thresholds()
    grid = Grids(table, found, thresholds)
    lenses: list[str | None] = [each for each in table.lenses if not is_norm_view(each)]
    looked_at = spread_over(grid, LOOKED_AT, grid.facts())
    ends = None if sweep is None else Ends(sweep.model, table)
    calibration = None
    if sweep is not None and ends is not None and heldout is not None:
        names = [LOGIT, *(each for each in lenses if each is not None)]
        calibration = learned.calibrate(sweep, ends, heldout, names)
    made = [
        health.numeric_health(table, grid, thresholds),
        norm_views.spread_over_views(grid, thresholds),
        norm_views.decoding_point(grid, thresholds),
        artefact.raw_vs_norm(grid, thresholds),
        agreement.lens_agreement(grid, thresholds),
        positions.next_token_depth(table, grid),
        gates.onset_margin(grid, thresholds),
        gates.gate_stability(grid, thresholds),
        learned.temperature(grid, calibration, looked_at),
        health.norm_trajectory(grid, thresholds),
        *_of_the_model(sweep, ends, grid, thresholds, spread_over(grid, sample)),
    ]
    for lens in lenses or [None]:
        made += [
            learned.learned_lens(grid, lens, calibration, thresholds, looked_at),
            positions.learned_positions(table, grid, lens, thresholds),
            learned.skip_layers(grid, lens, thresholds),
        ]
    order = list(CATALOGUE)
    findings = tuple(sorted(made, key=lambda finding: order.index(finding.name)))
    return Audit(findings, guide(findings))


def _of_the_model(
    sweep: Sweep | None, ends: Ends | None, grid: Grids, thresholds: Thresholds, chosen: Sequence[int]
) -> list[Finding]:
    """The audits that run the model."""
    if sweep is None or ends is None:
        names = ("last_layer", "repeatability", "position_stability", "norm_provenance", "unembed_bias", "copy_mask")
        return [missing(name, "not_asked", "The model was not at hand.") for name in names]
    return [
        again.last_layer(sweep, ends, grid, thresholds, chosen),
        again.repeatability(sweep, grid, thresholds, chosen),
        positions.position_stability(sweep, grid, thresholds, chosen),
        norms.norm_provenance(sweep, ends, grid, chosen),
        norms.unembed_bias(sweep, grid, thresholds),
        norms.copy_mask(sweep, grid.table.special_ids),
    ]


def spread_over(grid: Grids, count: int, wanted: Bool[np.ndarray, " prompt"] | None = None) -> list[int]:
    """At most `count` prompts with distinct token ids, evenly spread: of those wanted (with an onset), else of all."""
    wanted = grid.facts() & (grid.onset(LOGIT) >= 0) if wanted is None else wanted
    first: dict[tuple[int, ...], int] = {}
    for at in np.flatnonzero(wanted).tolist() or range(len(grid.table.items)):
        first.setdefault(grid.table.items[at].ids, at)
    distinct = list(first.values())
    if len(distinct) <= count:
        return distinct
    return [distinct[round(at)] for at in np.linspace(0, len(distinct) - 1, count)]


def _check(sweep: Sweep | None, table: SweepTable, sample: int) -> None:
    if sample < 1:
        raise UsageError(f"sample is {sample}: at least one prompt is run again")
    if sweep is not None:
        names = tuple(lens.name for lens in sweep.all_lenses)
        if set(names) != set(table.lenses):
            raise UsageError(
                f"the sweep has lenses {', '.join(names)}, the table {', '.join(table.lenses)}: "
                "give the one that made it"
            )
