"""A bank for little memory: it holds as many lenses as a budget allows, and fetches the others when they are asked for.

What is scored is what is in its slots; the rest of the pack stays in its files. A parent whose calibrated reading
reaches the manifest's `parent_threshold` asks for its children, all of them. They come beside the running steps, and
until they are there readings say that they are lacking. The rule of the file: a step never waits for a file, and a
file that is broken ends the next step with its error.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ftw.hat.classifiers.forms.slots import Slots, Staged
from ftw.hat.classifiers.index import LensRow, read_index, read_info
from ftw.hat.classifiers.layout import level_of
from ftw.hat.classifiers.modules import normalise
from ftw.hat.classifiers.packfile import PackFile, check_finite
from ftw.hat.classifiers.scores import Scores
from ftw.hat.classifiers.store import require_fingerprint
from ftw.hat.classifiers.tensors import LensTensors
from ftw.hat.monitoring.asked import Asked, lacks, to_host
from ftw.hat.monitoring.hierarchy import Deployment, Scope
from ftw.hat.monitoring.manifest import DeploymentManifest, LayerBounds
from ftw.hat.monitoring.residency import Residency, Tally, groups_of
from ftw.substrate.errors import ConfigError, SiteError, UnknownConcept, UsageError
from ftw.substrate.types import Site

ROOTS_FIRST = DeploymentManifest(
    manifest_id="small-memory", layer_bounds=LayerBounds(default_max_layer=0, always_load_layers=(0,))
)
"""What is read where no manifest is named: the roots, and below them whatever its parent's reading asks for."""
_ROWS = 64
"""States that are scored together: what lies between takes that many times 128 figures per slot."""


_KEPT = 256
"""Scorings whose lacks are remembered where nobody asks for them."""


@dataclass(slots=True)
class _Fetch:
    """A group on its way."""

    future: Future[Staged]
    began: float
    step: int


class ResidentBank:
    """The lenses of a pack folder within `budget` bytes, ready to score. Close it, or use it in a `with`.

    `manifest` says what is read from the start, what may be opened, and by which thresholds; without one, the roots are
    always read and everything below opens by its parent's reading. Its `max_loaded_bytes` counts where it is less than
    `budget`. On a GPU a reading is acted on when its copy has arrived: in the step after it, or when someone asks what
    it lacked. Raises ConfigError where what must always be read does not fit, FingerprintMismatch for
    another model's pack, PackError, StorageError.
    """

    def __init__(
        self,
        folder: Path,
        *,
        fingerprint: str,
        budget: int,
        manifest: DeploymentManifest | None = None,
        domains: Mapping[str, str] | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.bfloat16,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        info = read_info(folder)
        require_fingerprint(info, fingerprint)
        manifest = manifest or ROOTS_FIRST
        rows = [row for row in read_index(folder) if row.primary]
        self.deployment = Deployment(manifest, rows, info=info, domains=domains)
        self.scope = Scope(self.deployment, device)
        """What a monitor of this bank may show: give it to the Monitor."""
        self.rows: tuple[LensRow, ...] = self.deployment.rows
        """What is known of every lens, in memory or not."""
        self.terms: tuple[str, ...] = tuple(row.term for row in self.rows)
        self.sites: tuple[Site, ...] = tuple(Site(block) for block in sorted({row.block for row in self.rows}))
        self.d_model = info.model.d_model
        self.device = torch.device(device)
        self._place = {term.casefold(): at for at, term in enumerate(self.terms)}
        self._files = {level: PackFile(folder, level, rows) for level in sorted({level_of(row) for row in rows})}
        dynamic = manifest.dynamic_loading
        budget = min(budget, dynamic.max_loaded_bytes or budget)
        units = max(file.units for file in self._files.values())
        self._first = self._shared_layers()
        self.is_shared = bool(self._first)
        width = 0 if self._first else self.d_model
        each = Slots.bytes_of(width, units, dtype)
        once = sum(w.nbytes + b.nbytes for w, b in self._first.values())
        if budget < once + each:
            raise ConfigError(
                f"a budget of {budget} bytes holds no lens: each takes {each} bytes, what all share {once}; allow more"
            )
        groups = groups_of(self.deployment, self.scope.openable if dynamic.enabled else ())
        self._residency = Residency(
            groups,
            min((budget - once) // each, sum(len(group.places) for group in groups)),
            admit=dynamic.parent_threshold,
            release=dynamic.unload_threshold,
            cooldown=dynamic.cooldown_ticks,
            slot_bytes=each,
        )
        self._slots = Slots(self._residency.room, width, units, self.device, dtype)
        self._free = list(range(self._slots.count))
        self._slot: dict[int, int] = {}
        self._slope = torch.tensor([row.calibration.slope for row in self.rows], device=self.device)
        self._offset = torch.tensor([row.calibration.offset for row in self.rows], device=self.device)
        self._clock = clock
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="ftw-lenses")
        self._coming: dict[int, _Fetch] = {}
        self._admit = dynamic.parent_threshold
        self._groups_with_parent = [number for number, group in enumerate(groups) if group.parent >= 0]
        parents = [groups[number].parent for number in self._groups_with_parent]
        self._parents = torch.tensor(parents, dtype=torch.int64, device=self.device)
        self._lacking: tuple[str, ...] = ()
        self._asked: Asked | None = None
        """The last scoring's, until it is decided."""
        self._kept: list[Asked] = []
        self._lay()
        for number in self._residency.start():
            self._fetch(number)
        self.settle()

    def __enter__(self) -> "ResidentBank":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def nbytes(self) -> int:
        """Bytes that its lenses take on the device: never more than the budget."""
        return self._slots.nbytes + sum(w.nbytes + b.nbytes for w, b in self._first.values())

    @property
    def resident(self) -> tuple[str, ...]:
        """Concepts in memory, in bank order."""
        return tuple(self.terms[at] for at in sorted(self._slot))

    @property
    def loading(self) -> Sequence[str]:
        """Concepts whose children the last step lacked: asked for by their reading, and not in memory then."""
        self._decide()
        return self._lacking

    def late(self) -> Callable[[int], tuple[str, ...]]:
        """By row of all scorings since the last call, one after another: the concepts whose children it lacked.

        Asking for it waits until the row's readings are on the host.
        """
        kept, self._kept = self._kept, []
        return lambda row: lacks(kept, row, self._decide)

    @property
    def tally(self) -> Tally:
        """Hits, misses, loads and how long they took."""
        return self._residency.tally

    def index(self, term: str) -> int:
        """Place of a concept in `terms`, by name in any case. Raises UnknownConcept."""
        at = self._place.get(term.casefold())
        if at is None:
            raise UnknownConcept(f"no lens for {term!r} among {len(self)} concepts of this pack")
        return at

    def reading(self, terms: Sequence[str]) -> "ResidentBank":
        """Itself, if `terms` are always in memory. Raises UsageError for one that may be absent."""
        for term in terms:
            at = self.index(term)
            if at not in self.deployment.loaded:
                raise UsageError(
                    f"{self.terms[at]} may leave memory and cannot be read at every token: name it in the manifest's "
                    "always_include"
                )
        return self

    def score(
        self, resid: Mapping[Site, Float[Tensor, "row d_model"]], *, full: bool = False, budget: int | None = None
    ) -> Scores:
        """Scores of raw states by every lens in memory; of the others logit -inf. One step of the residency.

        `full` and `budget` change nothing: what is in memory is scored. Raises SiteError for a site that is missing,
        UsageError for states of another width, and what reading a file that broke raised.
        """
        with torch.inference_mode():
            self._decide()
            self._land(block=False)
            x = self._normalised(resid)
            parts = []
            for site, lenses, slots in self._layout:
                states = x[site]
                parts.append((lenses, torch.cat([self._read_by(site, p, slots) for p in torch.split(states, _ROWS)])))
            rows = len(next(iter(x.values())))
            logits = torch.full((rows, len(self.rows)), float("-inf"), device=self.device)
            for lenses, found in parts:
                logits.index_copy_(1, lenses, found)
            self._ask(logits)
            if self.device.type != "cuda":
                self._decide()
            return Scores(None, logits, rows, self._slope, self._offset, self.terms, 0)

    def prewarm(self) -> None:
        """Wait for everything that was asked for: called between a prompt and the first token."""
        self.settle()

    def settle(self) -> None:
        """Wait until nothing is on its way."""
        self._decide()
        self._land(block=True)

    def close(self) -> None:
        """Stop fetching."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def counters(self) -> dict[str, Any]:
        """Its figures for a record or a metrics endpoint: counts, bytes, and the median and 95 % of load times."""
        tally = self.tally
        times = sorted(tally.load_ms)
        return {
            "lenses": len(self.rows),
            "resident": len(self._slot),
            "slots": self._slots.count,
            "bytes": self.nbytes,
            "steps": tally.steps,
            "hits": tally.hits,
            "misses": tally.misses,
            "hit_rate": tally.hit_rate,
            "loads": tally.loads,
            "evictions": tally.evictions,
            "cooled": tally.cooled,
            "refused": tally.refused,
            "load_ms_median": times[len(times) // 2] if times else None,
            "load_ms_p95": times[min(len(times) - 1, len(times) * 95 // 100)] if times else None,
            "load_steps_most": max(tally.load_steps, default=None),
        }

    def _normalised(self, resid: Mapping[Site, Tensor]) -> dict[Site, Tensor]:
        missing = [str(site) for site in self.sites if site not in resid]
        if missing:
            raise SiteError(f"the lenses read {', '.join(map(str, self.sites))}; {', '.join(missing)} was not given")
        out = {}
        for site in self.sites:
            states = resid[site]
            if states.ndim != 2 or states.shape[1] != self.d_model:
                raise UsageError(f"states of shape {list(states.shape)}: these lenses take [row, {self.d_model}]")
            out[site] = normalise(states)
        return out

    def _read_by(self, site: Site, x: Float[Tensor, "row d_model"], slots: Int[Tensor, " lens"]) -> Tensor:
        """Logits of normalised states by the lenses in `slots`, which read one site."""
        if not self._first:
            return self._slots.logits(x, slots)
        weight, bias = self._first[site]
        return self._slots.after(torch.relu(F.linear(x, weight, bias)), slots)

    def _shared_layers(self) -> dict[Site, tuple[Tensor, Tensor]]:
        """Weight and bias of the first layer that all lenses of a site share, fp32; nothing where each has its own."""
        found: dict[Site, tuple[Tensor, Tensor]] = {}
        for file in self._files.values():
            for block in file.blocks if file.is_shared else ():
                part = file.rows(block, slice(0, 1))
                check_finite(part, file.rows_of(block)[:1], str(file.file))
                found[Site(block)] = part.w1[0].float().to(self.device), part.b1[0].float().to(self.device)
        return found

    def _ask(self, logits: Float[Tensor, "row lens"]) -> None:
        """Send what each group's parent read to the host; on a device nothing waits for it."""
        at = self._parents
        p = torch.sigmoid(logits.index_select(1, at) * self._slope[at] + self._offset[at])
        most, strong, event = p.amax(0) if len(p) else p.new_zeros(len(at)), p >= self._admit, None
        if p.is_cuda:
            most, strong = to_host(most), to_host(strong)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
        self._asked = Asked(most, strong, event)
        self._kept = [*self._kept[-_KEPT:], self._asked]

    def _decide(self) -> None:
        """Act on what the last step read: let groups go, ask for others."""
        asked, self._asked = self._asked, None
        if asked is None:
            return
        if asked.event is not None:
            asked.event.synchronize()
        most = asked.most
        parents = self._groups_with_parent
        openable, opened = self.scope.openable, self.scope.open - self.deployment.loaded
        readings = {
            number: p
            for number, p in zip(parents, most.tolist(), strict=True)
            if self._residency.groups[number].parent in self._slot
            and not openable.isdisjoint(self._residency.groups[number].places)
        }
        readings |= {self._residency.home[at]: 1.0 for at in opened if at in self._residency.home}
        plan = self._residency.tick(readings)
        for number in plan.drop:
            for at in self._residency.groups[number].places:
                self._free.append(self._slot.pop(at))
        for number in plan.load:
            self._fetch(number)
        if plan.drop:
            self._lay()
        groups = self._residency.groups
        lacking = [number for number in plan.lacking if groups[number].parent >= 0]
        column = {number: at for at, number in enumerate(parents)}
        asked.lack(
            [column[number] for number in lacking],
            [not opened.isdisjoint(groups[number].places) for number in lacking],
            [self.terms[groups[number].parent] for number in lacking],
        )
        self._lacking = asked.lacking or ()

    def _fetch(self, number: int) -> None:
        places = self._residency.groups[number].places
        future = self._pool.submit(self._read, places)
        self._coming[number] = _Fetch(future, self._clock(), self._residency.tally.steps)

    def _read(self, places: Sequence[int]) -> Staged:
        """The weights of lenses, as slots take them: in the reader's own thread."""
        parts = [self._part(at) for at in places]
        return Staged(*(torch.cat(each) for each in zip(*((p.first, p.second, p.tail) for p in parts), strict=True)))

    def _part(self, at: int) -> Staged:
        row = self.rows[at]
        part: LensTensors = self._files[level_of(row)].lens(row.term, row.block)
        return self._slots.staged(part)

    def _land(self, *, block: bool) -> None:
        """Put what has arrived into slots; all of it, if `block`."""
        if block and self._coming:
            wait([fetch.future for fetch in self._coming.values()])
        arrived = [number for number, fetch in self._coming.items() if fetch.future.done()]
        try:
            for number in arrived:
                self._put(number, self._coming.pop(number))
        finally:  # of several the first may be broken
            if arrived:
                self._lay()

    def _put(self, number: int, fetch: _Fetch) -> None:
        """Put a group that arrived into slots."""
        if fetch.future.exception() is not None:
            self._residency.failed(number)
        staged = fetch.future.result()
        places = self._residency.groups[number].places
        slots = [self._free.pop() for _ in places]
        self._slots.put(slots, staged)
        self._slot.update(zip(places, slots, strict=True))
        self._residency.landed(number)
        self.tally.landed(1e3 * (self._clock() - fetch.began), self._residency.tally.steps - fetch.step)

    def _lay(self) -> None:
        """Say again which lens of which site lies in which slot."""
        self._layout: list[tuple[Site, Tensor, Tensor]] = []
        for site in self.sites:
            own = [at for at in sorted(self._slot) if self.rows[at].block == site.layer]
            if own:
                lenses, slots = torch.tensor([own, [self._slot[at] for at in own]], device=self.device)
                self._layout.append((site, lenses, slots))
