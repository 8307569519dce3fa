"""Every milestone of every prompt through every lens, each a layer, a number or a reason.

The rule of the file: it puts together what the files beside it find; `meanings` says what each name means.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property

from ftw.substrate.errors import UsageError
from ftw.sweep.milestones import copy, crossings, semantics
from ftw.sweep.milestones.grid import LOGIT, RAW, Grid, Reasons, grids, no_first_token, no_onset, read_at
from ftw.sweep.milestones.thresholds import Thresholds
from ftw.sweep.outcome import Outcome
from ftw.sweep.shelf import is_norm_view
from ftw.sweep.table import SweepTable


@dataclass(frozen=True)
class Milestones:
    """What was found of one prompt through one lens. Layers count the blocks that have run, 0..n."""

    prompt: int
    """Index into the table's items."""
    lens: str
    n_layers: int
    values: Mapping[str, Outcome]
    """By name (see `meanings.MEANINGS`)."""
    copies: Mapping[float, Outcome] = field(default_factory=dict)
    """Strict copy's onset by threshold, window 1."""
    copies_norm_only: Mapping[float, Outcome] = field(default_factory=dict)
    """By threshold whether that onset is the norm's work."""
    soft: Mapping[tuple[int, float], Outcome] = field(default_factory=dict)
    """Soft copy's onset by window and threshold."""
    ranks: Mapping[int, Outcome] = field(default_factory=dict)
    kl: Mapping[float, Outcome] = field(default_factory=dict)
    """By bits."""
    cosines: Mapping[float, Outcome] = field(default_factory=dict)
    gaps: Mapping[float, Outcome] = field(default_factory=dict)
    """First layer where the answer leads the second token by so many logits, by logits."""

    def __getitem__(self, name: str) -> Outcome:
        """A milestone by the name it has in the document. Raises UsageError that names the nearest."""
        found = self.outcomes()
        if name not in found:
            near = get_close_matches(name, found, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(found))}"
            raise UsageError(f"there is no milestone {name!r}: {hint}")
        return found[name]

    def fraction(self, onset: Outcome) -> Outcome:
        """A layer as a share of the depth n, 0 to 1."""
        return onset if onset.value is None else Outcome(float(onset.value) / self.n_layers)

    def document(self) -> dict[str, dict[str, float | int | bool | str | None]]:
        """All milestones flat, `{name: {"value": …, "why": …}}`: thresholds stand in the names, `rank_le_5`.

        An onset's share of the depth, `semantic_frac`, stands beside it where there is an onset.
        """
        return {name: outcome.document() for name, outcome in self.outcomes().items()}

    def outcomes(self) -> Mapping[str, Outcome]:
        """Every milestone by the name it has in the document."""
        return self._by_name

    @cached_property
    def _by_name(self) -> dict[str, Outcome]:
        out = dict(self.values)
        out |= {f"copy_at_{p:g}": each for p, each in self.copies.items()}
        out |= {f"copy_at_{p:g}_norm_only": each for p, each in self.copies_norm_only.items()}
        out |= {f"soft_copy_k{k}_at_{p:g}": each for (k, p), each in self.soft.items()}
        out |= {f"rank_le_{rank}": each for rank, each in self.ranks.items()}
        out |= {f"kl_le_{bits:g}": each for bits, each in self.kl.items()}
        out |= {f"cos_ge_{least:g}": each for least, each in self.cosines.items()}
        out |= {f"gap_ge_{least:g}": each for least, each in self.gaps.items()}
        depths = ("copy", "semantic", "semantic_top2_ok", "semantic_run2", "semantic_strong", "semantic_strong_run2")
        chosen = {name: out[name] for name in depths if name in out}
        chosen |= {f"soft_copy_k{k}_at_{p:g}": each for (k, p), each in self.soft.items()}
        chosen |= {f"copy_at_{p:g}": each for p, each in self.copies.items()}
        chosen |= {"rank_le_5": self.ranks[5]} if 5 in self.ranks else {}
        return out | {f"{name}_frac": self.fraction(each) for name, each in chosen.items() if each.value is not None}


Found = dict[tuple[int, str], Milestones]


def of(table: SweepTable, thresholds: Thresholds | None = None) -> Found:
    """The milestones by prompt (an index into the table's items) and lens, from the rows at each prompt's end.

    Raises UsageError for a table without all layers of each prompt, or with one listed token per row (k of at least 2).
    """
    thresholds = thresholds or Thresholds()
    every = grids(table)
    firsts = {lens: _firsts(grid) for lens, grid in every.items()}
    out: Found = {}
    for lens, grid in every.items():
        learned = {name: firsts[name] for name in every if name != lens and _confirms(name)}
        parts = _Parts(grid, every, thresholds)
        parts.confirm(learned)
        for place, prompt in enumerate(grid.prompts):
            out[prompt, lens] = parts.milestones(place)
    return dict(sorted(out.items(), key=lambda each: (each[0][0], table.lenses.index(each[0][1]))))


def _confirms(name: str) -> bool:
    """Whether a lens can confirm another: lenses that only choose a norm do not, the raw one (no norm) does."""
    return name == RAW or not is_norm_view(name)


def _firsts(grid: Grid) -> dict[int, list[int]]:
    """Per prompt the layers where the answer comes first."""
    best = grid.shaped(semantics.is_answer(grid.rows))
    return {
        prompt: [layer for layer, here in zip(grid.layers, row.tolist(), strict=True) if here]
        for prompt, row in zip(grid.prompts, best, strict=True)
    }


class _Parts:
    """Each milestone of one lens as a list over its prompts."""

    def __init__(self, grid: Grid, every: Mapping[str, Grid], thresholds: Thresholds) -> None:
        self.grid, self.thresholds = grid, thresholds
        self.missing: Reasons = no_first_token(grid)
        self.values: dict[str, list[Outcome]] = {}
        self._copying(every)
        self._meaning()
        own = every.get(LOGIT, grid)
        for part in (
            crossings.surface(grid, thresholds),
            crossings.geometry(grid, thresholds),
            crossings.coverage(grid, thresholds),
            crossings.entropy_gaps(grid, own, thresholds),
            crossings.kl_at_depths(grid, thresholds),
            crossings.controls(grid, thresholds),
            crossings.whole(grid),
            crossings.pool_onsets(grid),
        ):
            self.values |= part
        self.ranks = crossings.rank_onsets(grid, thresholds)
        self.kl = crossings.kl_onsets(grid, thresholds)
        self.cosines = crossings.cosine_onsets(grid, thresholds)
        self._distances()

    def _copying(self, every: Mapping[str, Grid]) -> None:
        grid, t = self.grid, self.thresholds
        raw = every.get(RAW) if grid.lens != RAW else None
        radii = copy.raw_radii(every[LOGIT], every[RAW], t) if LOGIT in every and RAW in every else {}
        self.values["copy"] = copy.strict_onsets(grid, t, t.copy_p, t.copy_window)
        self.copies = {p: copy.strict_onsets(grid, t, p) for p in t.copy_sweep}
        self.norm_only = {p: copy.norm_only(each, grid, raw, radii, t, p) for p, each in self.copies.items()}
        self.soft = copy.soft_onsets(grid, t)
        self.values["low_entropy"] = copy.low_entropy_onsets(grid, t)
        ends = (min(t.copy_sweep), max(t.copy_sweep)) if t.copy_sweep else None
        self.values["copy_stability"] = [
            copy.stability(self.copies[ends[0]][at], self.copies[ends[1]][at], grid.rows.n_layers, t)
            if ends
            else Outcome.none("not_asked")
            for at in range(len(grid.prompts))
        ]

    def _meaning(self) -> None:
        grid, t = self.grid, self.thresholds
        best = grid.shaped(semantics.is_answer(grid.rows))
        margin, gap = grid.shaped(semantics.margins(grid.rows)), grid.shaped(semantics.gaps(grid.rows))
        clear, apart = best & (margin >= t.uniform_margin), best & (gap >= t.top2_gap)
        flags = {
            "semantic": best,
            "semantic_accepted": grid.shaped(semantics.is_accepted(grid.rows)),
            "semantic_margin_ok": clear,
            "semantic_top2_ok": apart,
            "semantic_run2": semantics.twice(best),
            "semantic_strong": clear & apart,
            "semantic_strong_run2": semantics.twice(clear & apart),
        }
        self.values |= {name: grid.onset(flag, missing=self.missing) for name, flag in flags.items()}
        self.values["semantic_stays"] = grid.stays(best, missing=self.missing)
        self.values["semantic_step"] = grid.step(best, missing=self.missing)
        self.gaps = {least: grid.onset(best & (gap >= least), missing=self.missing) for least in t.answer_gaps}
        onset = self.values["semantic"]
        self.values["p_at_semantic"] = read_at(grid, margin + 1 / grid.rows.vocab_size, onset)
        self.values["gap_at_semantic"] = read_at(grid, gap, onset)
        self.values["margin_ok_at_semantic"] = [
            Outcome(bool(clear[at, int(each.value) - grid.layers[0]])) if each.value is not None else no_onset(each)
            for at, each in enumerate(onset)
        ]

    def _distances(self) -> None:
        """Meaning after copying, in layers and as a share of the depth."""
        onset = self.values["semantic"]
        self.values["delta"] = [_minus(late, early) for late, early in zip(onset, self.values["copy"], strict=True)]
        base = self.thresholds.soft_p
        for k in self.thresholds.soft_windows:
            self.values[f"delta_soft_k{k}"] = [
                _minus(late, early) for late, early in zip(onset, self.soft[k, base], strict=True)
            ]
        n = self.grid.rows.n_layers
        self.values["delta_hat"] = []
        for at, late in enumerate(onset):
            softest = _earliest([each[at] for each in self.soft.values()])
            strict = self.values["copy"][at]
            apart = _minus(late, softest if strict.value is None else strict)
            self.values["delta_hat"].append(apart if apart.value is None else Outcome(float(apart.value) / n))

    def confirm(self, learned: Mapping[str, Mapping[int, Sequence[int]]]) -> None:
        """Confirmed semantics: `learned` are the layers where other lenses rank each prompt's answer first."""
        t, grid = self.thresholds, self.grid
        names = ("confirmed", "confirmed_by", "confirmed_margin_ok", "run2_near_confirmed")
        rows: dict[str, list[Outcome]] = {name: [] for name in names}
        for at, prompt in enumerate(grid.prompts):
            onset, run2 = self.values["semantic"][at], self.values["semantic_run2"][at]
            by = [
                lens
                for lens, layers in learned.items()
                if onset.value is not None
                and any(abs(layer - int(onset.value)) <= t.confirm_window for layer in layers.get(prompt, ()))
            ]
            found = onset if by else _unconfirmed(onset, bool(learned))
            rows["confirmed"].append(found)
            rows["confirmed_by"].append(Outcome("+".join(by)) if by else found)
            clear = self.values["semantic_margin_ok"][at]
            rows["confirmed_margin_ok"].append(found if not by else Outcome(clear.value == onset.value))
            rows["run2_near_confirmed"].append(found if not by else Outcome(_near(run2, onset, t.confirm_window)))
        self.values |= rows
        self._gates()

    def _gates(self) -> None:
        targets: dict[str, list[tuple[int, ...]]] = {
            name: [() if each.value is None else (int(each.value),) for each in self.values[source]]
            for name, source in (("semantic", "semantic"), ("strong", "semantic_strong"), ("confirmed", "confirmed"))
        }
        targets["strong_run2"] = [
            () if each.value is None else (int(each.value), int(each.value) + 1)
            for each in self.values["semantic_strong_run2"]
        ]
        self.values |= semantics.gate_stability(self.grid, targets, self.thresholds)

    def milestones(self, at: int) -> Milestones:
        """Those of the prompt at this place in the grid."""
        return Milestones(
            prompt=self.grid.prompts[at],
            lens=self.grid.lens,
            n_layers=self.grid.rows.n_layers,
            values={name: each[at] for name, each in self.values.items()},
            copies={key: each[at] for key, each in self.copies.items()},
            copies_norm_only={key: each[at] for key, each in self.norm_only.items()},
            soft={key: each[at] for key, each in self.soft.items()},
            ranks={key: each[at] for key, each in self.ranks.items()},
            kl={key: each[at] for key, each in self.kl.items()},
            cosines={key: each[at] for key, each in self.cosines.items()},
            gaps={key: each[at] for key, each in self.gaps.items()},
        )


def _minus(late: Outcome, early: Outcome) -> Outcome:
    if late.value is None:
        return no_onset(late)
    return Outcome.none("no_copy") if early.value is None else Outcome(int(late.value) - int(early.value))


def _earliest(onsets: Sequence[Outcome]) -> Outcome:
    found = [int(each.value) for each in onsets if each.value is not None]
    return Outcome(min(found)) if found else Outcome.none("no_copy")


def _unconfirmed(onset: Outcome, has_others: bool) -> Outcome:
    if onset.value is None:
        return no_onset(onset)
    return Outcome.none("never" if has_others else "no_lens")


def _near(run2: Outcome, onset: Outcome, window: int) -> bool:
    """Whether one of the two layers of the run lies within the window around the onset."""
    if run2.value is None or onset.value is None:
        return False
    return any(abs(int(run2.value) + step - int(onset.value)) <= window for step in (0, 1))
