"""Fits the Prism: whitening of the lens input and one orthogonal map, from moments over many distinct positions.

Lens inputs x (after the tail norm) of all layers, embedding to last, are pooled; only their first and second moments
are kept, and their products with the last layer's inputs h at the same positions. Two targets for the rotation R, both
by Procrustes in row convention (the orthogonal R for which rows a R come nearest to rows b):

`head`    the published construction: the k principal directions of whitened inputs go to the k strongest directions of
          the head (its rows minus their mean, which no softmax sees), in order of strength; of two opposite directions
          the nearer one. Nothing in the text says that these belong together: it is a test of that guess.
`states`  whitened inputs, within their k principal directions, go to h; with the scale and offset of least squares.

k: the fewest principal directions that hold 99 % of the variance of whitened inputs (the eigenvalues of their
correlation matrix), and at most one for every 10 positions. What they leave open, R keeps as near to the identity, that
is to the logit lens, as it can.

The rule of the file: rows stay rows, and nothing is said of a lens that held-out text does not show.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from ftw.substrate.errors import ConfigError, NumericError
from ftw.substrate.model import Model
from ftw.sweep import forward
from ftw.sweep.fitting.accept import Acceptance, accept, compare, depth_layers
from ftw.sweep.fitting.corpus import Corpus, Windows
from ftw.sweep.fitting.rows import ALL, heldout_rows
from ftw.sweep.lenses.fitted import ModelOf
from ftw.sweep.lenses.logit import LogitLens
from ftw.sweep.lenses.prism import (
    Covariance,
    PrismLens,
    PrismManifest,
    Target,
    of_tensors,
    orthogonality_error,
    save_prism,
)

FEWEST = 10_000
"""Distinct positions that a Prism is fitted on, at least: a basis from few is noise."""
POSITIONS = 20_000
HELD_OUT = 2048
"""Held-out positions, half of them to choose the target, half for the figures that are reported."""
LENGTH = 128
"""Tokens of a window."""
GROUP = 32
"""Windows that are read at once."""
SHARE = 0.99
"""Of the variance: what the k directions hold."""
SEEN = 10
"""Positions for each of them, at least."""
FLOOR = 1e-2
"""Eigenvalues of the correlation matrix (1 on average) count as at least this when features are decorrelated."""
FLAT = 1e-4
"""A feature's deviation counts as at least this share of the largest one."""
OPEN = 1e-6
"""Singular values below this share of the largest say nothing of their direction."""
TARGETS: tuple[Target, ...] = get_args(Target)
COVARIANCES: tuple[Covariance, ...] = get_args(Covariance)


@dataclass(frozen=True)
class PrismFit:
    """A fitted Prism with all that is known of it."""

    lens: PrismLens
    acceptance: Acceptance
    """The verdict of the published gates; of these only A decides here, see `accepted`."""
    others: dict[str, Acceptance]
    """The same for the targets that were not chosen."""

    @property
    def accepted(self) -> bool:
        """Whether it beats the logit lens on held-out text at 25, 50 and 75 % of the depth, by the bits of gate A.

        B to D are reported: one map for all layers is not the model at the last one, so C cannot hold.
        """
        return self.acceptance.gates["A"].passed

    def save(self, folder: Path) -> None:
        """Writes the artefact. Raises StorageError."""
        save_prism(folder, self.lens)


@dataclass(frozen=True)
class Moments:
    """First and second moments of lens inputs x (all layers pooled) and of the last layer's h, fp64 on the CPU."""

    positions: int
    """Distinct positions."""
    mean: Float[Tensor, " width"]
    """Of x."""
    covariance: Float[Tensor, "width width"]
    """Of x."""
    last_mean: Float[Tensor, " width"]
    """Of h."""
    cross: Float[Tensor, "width width"]
    """Mean of (x - mean)ᵀ (h - last_mean)."""

    @property
    def deviation(self) -> Float[Tensor, " width"]:
        """Of each feature of x."""
        found = self.covariance.diagonal().clamp_min(0).sqrt()
        return found.clamp_min(FLAT * float(found.max()))

    @property
    def correlation(self) -> Float[Tensor, "width width"]:
        """Covariance of the features after each is whitened by itself."""
        return self.covariance / self.deviation[:, None] / self.deviation


@dataclass(frozen=True)
class Spectrum:
    """Principal directions of whitened inputs, the strongest first, and how many of them are used."""

    values: Float[Tensor, " width"]
    """Eigenvalues of the correlation matrix."""
    rows: Float[Tensor, "width width"]
    """The directions, one a row."""
    k: int

    @property
    def share(self) -> float:
        """Of the variance: what the first k directions hold."""
        return float(self.values[: self.k].sum() / self.values.sum())


def fit_prism(
    model: Model,
    corpus: Corpus,
    *,
    target: str | None = None,
    covariance: str = "diagonal",
    k: int | None = None,
    positions: int = POSITIONS,
    heldout: int = HELD_OUT,
    length: int = LENGTH,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> PrismFit:
    """A Prism, fitted on the corpus's `fit` part and judged on its `heldout` part.

    Without a target both are fitted, and the one with the lower mean KL at 25, 50 and 75 % of the depth on one half of
    the held-out text is kept; figures are those of the other half. `progress` is told positions done, of how many.
    Raises ConfigError for bad arguments or a text of fewer than 10,000 distinct positions, NumericError for a NaN.
    """
    targets, white = _checked(model, target, covariance, positions)
    length = min(length, model.context)
    windows = corpus.windows(model, ALL, length)
    moments = measure(model, windows, positions, progress)
    if moments.positions < FEWEST:
        raise ConfigError(
            f"{corpus.name} has {moments.positions} distinct positions in its part 'fit': a Prism takes at least "
            f"{FEWEST}. Give more text"
        )
    first, second, heldout_digest = heldout_rows(model, corpus, heldout, length=length, share=0.5, seed=seed)
    found = {each: build(model, moments, each, white, k) for each in targets}
    chosen = (
        min(found, key=lambda each: _mean_kl(model, found[each][0], first)) if len(found) > 1 else next(iter(found))
    )
    verdicts = {each: accept(compare(model, lens, second)) for each, (lens, _) in found.items()}
    acceptance = verdicts.pop(chosen)
    lens, spectrum = found[chosen]
    fit = PrismFit(lens, acceptance, {str(each): verdict for each, verdict in verdicts.items()})
    source = {
        "how": "fit",
        "corpus": {"name": corpus.name, "digest": windows.digest, "heldout_digest": heldout_digest},
        "positions": moments.positions,
        "windows": windows.n_windows,
        "heldout_positions": [first.shape[1], second.shape[1]],
        "seed": seed,
    }
    return replace(fit, lens=replace(lens, manifest=_manifest(model, fit, spectrum, (chosen, white), source)))


def _manifest(
    model: Model, fit: PrismFit, spectrum: Spectrum, form: tuple[Target, Covariance], source: dict[str, Any]
) -> PrismManifest:
    lens = fit.lens
    return PrismManifest(
        model=ModelOf.of(model),
        width=len(lens.mean),
        n_layers=model.n_layers,
        target=form[0],
        covariance=form[1],
        k=spectrum.k,
        scale=lens.scale,
        accepted=fit.accepted,
        source={
            **source,
            "layers": [0, model.n_layers],
            "spectrum": {"share": spectrum.share, "values": spectrum.values[:64].tolist()},
            "orthogonality_error": orthogonality_error(lens.rotation.double()),
            "other_targets": {
                name: {"median_gain_bits": list(other.gates["A"].measured)} for name, other in fit.others.items()
            },
        },
        acceptance=fit.acceptance.document(),
    )


def measure(
    model: Model, windows: Windows, positions: int, progress: Callable[[int, int], None] | None = None
) -> Moments:
    """Moments over up to `positions` distinct positions: a position counts once, whatever windows begin alike.

    Raises NumericError where a state is not finite.
    """
    lens = LogitLens(model.arch)
    count, sums = 0, None
    for group, places in _distinct(windows, positions):
        for part in forward.batches(model, group, positions=places):
            x = lens.head_inputs(part.states, lens.layers)
            if not bool(x.isfinite().all()):
                raise NumericError(f"{model.name} has a NaN or infinity in the stream: load it in float32 or bfloat16")
            sums = sums or _Sums(x)
            sums.add(x)
            count += x.shape[1]
        if progress is not None:
            progress(count, positions)
    if sums is None:
        raise ConfigError("there is no position to fit a Prism on: give more text")
    return sums.moments(count)


def build(
    model: Model, moments: Moments, target: Target, covariance: Covariance = "diagonal", k: int | None = None
) -> tuple[PrismLens, Spectrum]:
    """The lens of some moments, without a manifest, and the spectrum that chose k (`k` overrides it).

    Raises ConfigError for a k that the width does not allow.
    """
    spectrum = spectrum_of(moments, k)
    basis = spectrum.rows[: spectrum.k]
    deviation, zero = moments.deviation, torch.zeros_like(moments.mean)
    decorrelate = None
    if covariance == "full":
        size = spectrum.values.clamp_min(FLOOR).rsqrt()
        decorrelate = spectrum.rows.T @ (size[:, None] * spectrum.rows)
    if target == "head":
        strong = head_directions(model)[: spectrum.k]
        signs = torch.where((basis * strong).sum(-1) < 0, -1.0, 1.0)
        rotation, scale, offset = procrustes((basis * signs[:, None]).T @ strong), 1.0, zero
    else:
        white = torch.diag(1 / deviation) if decorrelate is None else decorrelate / deviation[:, None]
        cross = white.T @ moments.cross
        rotation = procrustes(basis.T @ (basis @ cross))
        spread = float((white.T @ moments.covariance @ white).trace())
        scale, offset = float((rotation * cross).sum()) / spread, moments.last_mean
    if not scale > 0:
        raise NumericError(f"the Prism's scale is {scale:.3g}: inputs and last layer have nothing in common")
    parts = {"mean": moments.mean, "deviation": deviation, "rotation": rotation, "offset": offset}
    device = _head_weight(model).device
    if decorrelate is not None:
        parts["decorrelate"] = decorrelate
    return of_tensors(model.arch, {name: part.to(device) for name, part in parts.items()}, scale), spectrum


def procrustes(cross: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """The orthogonal R that brings rows a R nearest to rows b (least squares), given cross = aᵀ b.

    It maximises tr(Rᵀ cross): with cross = P S Qᵀ it is P Qᵀ (Schönemann 1966). Directions that `cross` says nothing of
    are mapped onto each other as near to the identity as they can be.
    """
    p, sizes, q = torch.linalg.svd(cross)
    known = int((sizes > OPEN * sizes.max()).sum())
    rotation: Tensor = p[:, :known] @ q[:known]
    if known < len(cross):
        free, onto = p[:, known:], q[known:]
        left, _, right = torch.linalg.svd(free.T @ onto.T)
        rotation = rotation + free @ (left @ right) @ onto
    return rotation


def spectrum_of(moments: Moments, k: int | None = None) -> Spectrum:
    """The principal directions, and by the rule of this file (or as given) how many of them count."""
    width = len(moments.mean)
    if k is not None and not 1 <= k <= width:
        raise ConfigError(f"k is {k}: it must be 1..{width}, the width of the head's input")
    values, vectors = torch.linalg.eigh(moments.correlation)
    values, rows = values.flip(0), vectors.T.flip(0)
    held = values.clamp_min(0).cumsum(0) / values.clamp_min(0).sum()
    enough = 1 + int((held < SHARE).sum())
    return Spectrum(values, rows, k or max(1, min(enough, width, moments.positions // SEEN)))


def head_directions(model: Model) -> Float[Tensor, "width width"]:
    """The head's directions, the strongest first, one a row: eigenvectors of its rows' covariance. fp64."""
    weight = _head_weight(model)[: model.vocab_size]
    total = torch.zeros(weight.shape[1], weight.shape[1], dtype=torch.float64)
    mean = torch.zeros(weight.shape[1], dtype=torch.float64)
    for start in range(0, len(weight), 16384):
        rows = weight[start : start + 16384].double().cpu()
        total += rows.T @ rows
        mean += rows.sum(0)
    mean /= len(weight)
    vectors: Tensor = torch.linalg.eigh(total - len(weight) * torch.outer(mean, mean)).eigenvectors
    return vectors.T.flip(0)


class _Sums:
    """Sums over batches, around the mean of the first one so that little is lost in differences of large numbers."""

    def __init__(self, x: Float[Tensor, "layer row width"]) -> None:
        width = x.shape[-1]
        self.layers = x.shape[0]
        self.centre = x.double().mean((0, 1)).float()
        self.x = torch.zeros(width, dtype=torch.float64)
        self.h = torch.zeros(width, dtype=torch.float64)
        self.xx = torch.zeros(width, width, dtype=torch.float64)
        self.xh = torch.zeros(width, width, dtype=torch.float64)

    def add(self, x: Float[Tensor, "layer row width"]) -> None:
        x = x - self.centre
        flat, last = x.flatten(0, 1), x[-1]
        self.x += flat.sum(0).double().cpu()
        self.h += last.sum(0).double().cpu()
        self.xx += (flat.T @ flat).double().cpu()
        self.xh += (x.sum(0).T @ last).double().cpu()

    def moments(self, positions: int) -> Moments:
        n = positions * self.layers
        x, h = self.x / n, self.h / positions
        centre = self.centre.double().cpu()
        covariance = self.xx / n - torch.outer(x, x)
        return Moments(positions, centre + x, covariance, centre + h, self.xh / n - torch.outer(x, h))


def _distinct(windows: Windows, positions: int) -> Iterator[tuple[list[list[int]], list[Sequence[int]]]]:
    """Windows in groups, and of each the positions that no earlier window began alike up to, until there are enough."""
    seen = set[bytes]()
    group: list[list[int]] = []
    places: list[Sequence[int]] = []
    count = 0
    for window in windows:
        state = hashlib.blake2b(digest_size=12)
        fresh = []
        for at, token in enumerate(window):
            state.update(token.to_bytes(4, "little"))
            key = state.digest()
            if key not in seen and count < positions:
                seen.add(key)
                fresh.append(at)
                count += 1
        if fresh:
            group.append(window)
            places.append(fresh)
        if len(group) == GROUP or (group and count >= positions):
            yield group, places
            group, places = [], []
        if count >= positions:
            return
    if group:
        yield group, places


def _mean_kl(model: Model, lens: PrismLens, states: Tensor) -> float:
    """KL(model || lens) at the depths that decide, mean over positions."""
    kl = compare(model, lens, states).lens_kl_bits
    return float(kl[list(depth_layers(model.n_layers))].mean())


def _head_weight(model: Model) -> Tensor:
    weight: Tensor = model.arch.head.weight  # type: ignore[assignment]
    return weight.detach()


def _checked(
    model: Model, target: str | None, covariance: str, positions: int
) -> tuple[tuple[Target, ...], Covariance]:
    targets = tuple(each for each in TARGETS if target in (None, each))
    if not targets:
        raise ConfigError(f"there is no target {target!r} for a Prism: use {', '.join(TARGETS)}")
    white = next((each for each in COVARIANCES if each == covariance), None)
    if white is None:
        raise ConfigError(f"there is no covariance {covariance!r}: use {', '.join(COVARIANCES)}")
    if positions < FEWEST:
        raise ConfigError(f"positions are {positions}: a Prism of {model.name} takes at least {FEWEST}")
    return targets, white
