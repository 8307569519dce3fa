"""Every lens of a pack over many states in one go: normalise once, compute what matters, stay on the device.

The rule of the file: one way in for one state and for thousands, and a NaN passes every screen, so that it cannot hide.
How the lenses are computed is in `forms`.
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

import torch
from jaxtyping import Float
from torch import Tensor

from ftw.hat.classifiers.forms.separate import Separate
from ftw.hat.classifiers.forms.shared import Shared
from ftw.hat.classifiers.forms.trunk import Trunked
from ftw.hat.classifiers.gate import Gate
from ftw.hat.classifiers.index import LensRow, check_rows
from ftw.hat.classifiers.modules import MLP
from ftw.hat.classifiers.scores import Scores
from ftw.hat.classifiers.tensors import LensTensors
from ftw.hat.classifiers.trunk import Trunk, reexpress
from ftw.substrate.errors import PackError, SiteError, UnknownConcept, UsageError
from ftw.substrate.types import Site

_ALWAYS = 1e9
"""The screen bias of a lens that is to be read always."""
_MEMORY = 1 << 28
"""Bytes for what lies between the layers of a full scoring, unless told."""
_DTYPES = (torch.float32, torch.bfloat16, torch.int8)


class LensBank:
    """All lenses of a pack, ready to score. Immutable; `reading` gives one that always reads certain concepts."""

    def __init__(
        self, rows: Sequence[LensRow], form: Separate | Shared, bias: Tensor, floor: Tensor, refined: int = 0
    ) -> None:
        """For the class's own use: see `from_tensors` and `load_bank`."""
        self.rows = tuple(rows)
        """What is known of each lens, in bank order."""
        self.terms: tuple[str, ...] = tuple(row.term for row in rows)
        self.sites: tuple[Site, ...] = tuple(Site(block) for block in dict.fromkeys(row.block for row in rows))
        """What it reads, ascending."""
        self.d_model = form.d_model
        self._form = form
        self._bias = bias  # screen bias minus screen threshold: a pair passes at 0
        self._floor = floor  # the logit from which a pair of a shared bank is kept
        self._refined = refined  # how many of a state's highest readings get a second look
        self._slope = torch.tensor([row.calibration.slope for row in rows], device=bias.device)
        self._offset = torch.tensor([row.calibration.offset for row in rows], device=bias.device)
        self._place = {term.casefold(): at for at, term in enumerate(self.terms)}

    @classmethod
    def from_tensors(
        cls,
        blocks: Mapping[int, LensTensors],
        rows: Sequence[LensRow],
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.bfloat16,
        refined: int = 16,
        trunks: Mapping[int, Trunk] | None = None,
    ) -> "LensBank":
        """A bank of the lenses of one or more blocks; `rows` as `check_rows` demands, one per lens.

        Where all lenses of every block share their first layer, it is computed once and in fp32. Otherwise `dtype` is
        that of the MLPs' weights in memory: fp32 equals the modules to 1e-5, bf16 halves what a step reads, int8
        (first layer only, a scale per unit) halves it again. With bf16 and int8 on a CPU, a full scoring computes each
        state's `refined` highest readings again, in fp32 from the weights as they came, so that their order is exact;
        the rest is within about a hundredth of a lens's spread. The calibration is fp32.

        With `trunks`, one per block, lenses of their own first layers read what the trunk keeps of a state, not the
        state: a fraction of the work, at the loss in AUROC that was measured when the trunk was fitted.

        The tensors are kept as they came (those of a mapped file take no memory of their own) and laid out anew when
        first used. Raises PackError, UsageError for another dtype.
        """
        if dtype not in _DTYPES:
            raise UsageError(f"lenses in {dtype}: a bank holds them in float32, bfloat16 or int8")
        check_rows(rows, "lens rows")
        counts = {block: sum(row.block == block for row in rows) for block in dict.fromkeys(row.block for row in rows)}
        if counts.keys() != set(blocks) or not rows:
            raise PackError(f"the index has lenses at blocks {sorted(counts)}, the tensors at {sorted(blocks)}")
        d_model = blocks[rows[0].block].w1.shape[-1]
        for block, count in counts.items():
            blocks[block].require(block, count, d_model)
        parts = [blocks[block].trimmed() for block in counts]
        device = torch.device(device)
        form: Separate | Shared
        if all(part.is_shared for part in parts):
            form = Shared(parts, device)
        elif trunks is not None:
            if not counts.keys() <= trunks.keys():
                raise PackError(f"the lenses read blocks {sorted(counts)}, the trunks {sorted(trunks)}")
            chosen = [trunks[block] for block in counts]
            parts = [reexpress(part, trunk) for part, trunk in zip(parts, chosen, strict=True)]
            form = Trunked(parts, chosen, device, dtype)
        else:
            form = Separate(parts, device, dtype)
        bias = torch.cat([p.screen_b - p.screen_threshold.clamp(min=-_ALWAYS) for p in parts])
        floor = torch.tensor([row.threshold_logit for row in rows])
        refined = refined if dtype != torch.float32 and device.type == "cpu" else 0
        return cls(rows, form, bias.to(device, torch.float32), floor.to(device), refined)

    def __len__(self) -> int:
        return len(self.terms)

    @property
    def device(self) -> torch.device:
        """Where its weights are, and where states are expected."""
        return self._bias.device

    @property
    def is_shared(self) -> bool:
        """Whether all lenses of a site share their first layer, so that every pair is computed and nothing screened."""
        return isinstance(self._form, Shared)

    def index(self, term: str) -> int:
        """Place of a concept in `terms`, by name in any case. Raises UnknownConcept that names the nearest ones."""
        at = self._place.get(term.casefold())
        if at is None:
            near = get_close_matches(term.casefold(), self._place, n=3, cutoff=0.5)
            hint = f"; nearest: {', '.join(self.terms[self._place[name]] for name in near)}" if near else ""
            raise UnknownConcept(f"no lens for {term!r} among {len(self)} concepts{hint}")
        return at

    def reading(self, terms: Sequence[str]) -> "LensBank":
        """The same lenses and weights, but `terms` are always among what is scored. Raises UnknownConcept."""
        places = [self.index(term) for term in terms]
        bias, floor = self._bias.clone(), self._floor.clone()
        bias[places], floor[places] = _ALWAYS, float("-inf")
        return LensBank(self.rows, self._form, bias, floor, self._refined)

    def gated(self, gate: Gate) -> "LensBank":
        """The same lenses, but of the branches that a gate does not open only those that are always read are screened.

        A full scoring reads every lens all the same. Raises UsageError for a gate that does not fit this bank.
        """
        site = Site(gate.block)
        size = (len(gate.branch_of), gate.weight.shape[1])
        if isinstance(self._form, Shared) or site not in self.sites or size != (len(self), self.d_model):
            raise UsageError(
                f"a gate of {size[0]} lenses of width {size[1]} at block {gate.block} does not fit: this bank has "
                f"{len(self)} at {', '.join(map(str, self.sites))}, of width {self.d_model}"
                + (", which share their first layer" * self.is_shared)
            )
        form = self._form.gated(gate, self.sites.index(site))
        return LensBank(self.rows, form, self._bias, self._floor, self._refined)

    def score(
        self,
        resid: Mapping[Site, Float[Tensor, "row d_model"]],
        *,
        full: bool = False,
        budget: int | None = None,
        memory: int = _MEMORY,
    ) -> Scores:
        """Scores of raw (not yet normalised) states, one row each, at every site of the bank.

        With `full`, of every pair of a state and a lens. Otherwise of those that may matter: the pairs that their
        linear screens let pass, at most `budget` of them (those that clear their screens by most; the rest is counted
        in `Scores.capped`), or, where lenses share their first layer, exactly the pairs at or above their thresholds.
        Rows and pairs are taken some after another, such that beside the states and the scores themselves at most
        about `memory` bytes are in use, or what one row of lenses needs where that is more.
        Rows may come from one prompt or from many requests: what a row reads does not depend on the others. Raises
        SiteError when a site is missing, UsageError for states of another width.
        """
        with torch.inference_mode():
            states = self._states(resid)
            rows = states.shape[1]
            if full:
                return Scores(None, self._all(states, memory), rows, self._slope, self._offset, self.terms, 0)
            if isinstance(self._form, Shared):
                flat, logits, capped = self._form.some(states, self._floor, memory)
            else:
                flat, logits, capped = self._form.some(states, self._bias, budget, memory)
            return Scores(flat, logits, rows, self._slope, self._offset, self.terms, capped)

    def screen_scores(self, resid: Mapping[Site, Float[Tensor, "row d_model"]]) -> Float[Tensor, "row lens"]:
        """By how much each pair clears its linear screen; below 0 it does not pass."""
        with torch.inference_mode():
            return self._form.margins(self._states(resid), self._bias)

    def module(self, term: str) -> MLP:
        """One lens as a module of its own, fp32, with the weights that the bank uses. Raises UnknownConcept."""
        return self._form.module(self.index(term))

    def _all(self, states: Float[Tensor, "site row d_model"], memory: int) -> Float[Tensor, "row lens"]:
        logits = self._form.all(states, memory)
        if not self._refined or not isinstance(self._form, Separate):
            return logits
        odds = (logits * self._slope + self._offset).nan_to_num_(float("-inf"))
        lens = odds.topk(min(self._refined, len(self)), sorted=False).indices
        return logits.scatter_(1, lens, self._form.again(states, lens))

    def _states(self, resid: Mapping[Site, Tensor]) -> Float[Tensor, "site row d_model"]:
        missing = [str(site) for site in self.sites if site not in resid]
        if missing:
            raise SiteError(f"the lenses read {', '.join(map(str, self.sites))}; {', '.join(missing)} was not given")
        states = [resid[site] for site in self.sites]
        if states[0].ndim != 2 or states[0].shape[1] != self.d_model:
            raise UsageError(f"states of shape {list(states[0].shape)}: these lenses take [row, {self.d_model}]")
        return states[0][None] if len(states) == 1 else torch.stack(states)
