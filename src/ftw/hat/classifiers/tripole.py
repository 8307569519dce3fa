"""Simplexes: a quality with two opposite poles and a middle, read by one linear map from a state to three logits.

Poles stand in the order negative, neutral, positive everywhere. A pack keeps its simplexes in simplexes.json (one row
each) and simplexes.safetensors (weight [S, 3, D], bias [S, 3]).

The rule of the file: the margin of the loss is a constant. A learnable one is pushed to nothing by its own loss, which
grows with it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field, ValidationError, field_validator
from torch import Tensor, nn

from ftw.hat.classifiers.index import complaints, read_json
from ftw.hat.classifiers.modules import normalise
from ftw.hat.classifiers.packfile import finite, read_tensors, write_tensors
from ftw.substrate.config import Strict
from ftw.substrate.errors import NumericError, PackError, SiteError, UsageError
from ftw.substrate.manifest import canonical_json, write_atomically
from ftw.substrate.types import Site

ROWS = "simplexes.json"
WEIGHTS = "simplexes.safetensors"
FORMAT = "ftw-simplexes/1"
POLES = 3
NEGATIVE, NEUTRAL, POSITIVE = range(POLES)
"""The order of the poles: as labels, logits and probabilities."""
MARGIN = 0.5
"""By how much the right pole's logit is to exceed each other one."""
_MARGIN_SHARE = 0.5
_APART = 1e-4
"""Weight of the term that keeps the three directions apart."""


class TripoleLens(nn.Module):
    """One simplex: D -> 3 logits (negative, neutral, positive). Takes normalised input, as every lens."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.linear = nn.Linear(d_model, POLES)

    def forward(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch 3"]:
        """The three logits of each normalised state."""
        logits: Tensor = self.linear(x)
        return logits


def tripole_loss(
    lens: TripoleLens, x: Float[Tensor, "state d_model"], labels: Int[Tensor, " state"], margin: float = MARGIN
) -> Float[Tensor, ""]:
    """Cross entropy, half the mean shortfall from `margin` over the wrong poles, and a pull towards orthogonal rows."""
    logits = lens(x)
    right = logits.gather(1, labels[:, None])
    wrong = F.one_hot(labels, POLES) == 0
    shortfall = torch.relu(margin - (right - logits))[wrong].mean()
    weight = lens.linear.weight
    apart = (weight @ weight.T - torch.eye(POLES, device=weight.device, dtype=weight.dtype)).square().sum()
    return F.cross_entropy(logits, labels) + _MARGIN_SHARE * shortfall + _APART * apart


class Spread(Strict):
    """p(positive) - p(negative) on neutral text."""

    mean: float = Field(default=0.0, ge=-1, le=1)
    std: float = Field(default=0.0, ge=0, le=1)


class SimplexBinding(Strict):
    """To which concept a simplex belongs, and how its readings are watched."""

    concept: str | None = None
    always_on: bool = False
    baseline_window: int = Field(default=100, ge=1)
    """Readings that the running baseline remembers."""
    alert_threshold: float = Field(default=2.0, gt=0, allow_inf_nan=False)
    """Standard deviations from the running baseline that count."""
    trend_window: int = Field(default=500, ge=1)


class SimplexRow(Strict):
    """One simplex: its poles, where its weights lie, what its readings are measured against."""

    name: str = Field(min_length=1)
    block: int = Field(ge=-1)
    row: int = Field(ge=0)
    """Place among all simplexes, in the order of the tensors."""
    poles: tuple[str, str, str]
    """What the negative, the neutral and the positive pole are called."""
    temperature: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Logits are divided by it; fitted on held-out states."""
    baseline: Spread = Spread()
    metrics: dict[str, float] = Field(default_factory=dict)
    """Held-out figures by name."""
    binding: SimplexBinding = SimplexBinding()

    @field_validator("poles")
    @classmethod
    def _apart(cls, value: tuple[str, str, str]) -> tuple[str, str, str]:
        if len({pole.casefold() for pole in value}) != POLES or not all(value):
            raise ValueError("negative, neutral and positive have three different names")
        return value


class TripoleBank:
    """All simplexes of a pack, read at once. Immutable."""

    def __init__(
        self,
        rows: Sequence[SimplexRow],
        weight: Float[Tensor, "simplex 3 d_model"],
        bias: Float[Tensor, "simplex 3"],
    ) -> None:
        """Raises PackError where the rows are not those of the tensors."""
        check_simplexes(rows, weight, bias, "simplex rows")
        self.rows = tuple(rows)
        self.names: tuple[str, ...] = tuple(row.name for row in rows)
        self.sites: tuple[Site, ...] = tuple(Site(block) for block in sorted({row.block for row in rows}))
        """What it reads, ascending."""
        self.weight = weight.detach().float()
        self.bias = bias.detach().float()
        self._temperature = torch.tensor([row.temperature for row in rows], device=self.bias.device)[:, None]
        self._at = {
            site: torch.tensor([at for at, row in enumerate(rows) if row.block == site.layer], device=bias.device)
            for site in self.sites
        }

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def d_model(self) -> int:
        """Width of the states that it takes."""
        return int(self.weight.shape[-1])

    def score(self, resid: Mapping[Site, Float[Tensor, "row d_model"]]) -> Float[Tensor, "row simplex 3"]:
        """Probabilities of the poles for raw (not yet normalised) states, fp32, on their device.

        Raises SiteError when a site is missing, UsageError for states of another width.
        """
        missing = [str(site) for site in self.sites if site not in resid]
        if missing:
            raise SiteError(f"the simplexes read {', '.join(map(str, self.sites))}; {', '.join(missing)} was not given")
        with torch.inference_mode():
            out = self.bias.new_empty(len(resid[self.sites[0]]), len(self), POLES)
            for site, at in self._at.items():
                states = resid[site]
                if states.ndim != 2 or states.shape[1] != self.d_model:
                    raise UsageError(
                        f"states of shape {list(states.shape)}: these simplexes take [row, {self.d_model}]"
                    )
                logits = torch.einsum("rd,spd->rsp", normalise(states), self.weight[at]) + self.bias[at]
                out[:, at] = (logits / self._temperature[at]).softmax(-1)
            return out

    def module(self, name: str) -> TripoleLens:
        """One simplex as a module, fp32, without its temperature. Raises UsageError for a name that is not here."""
        if name not in self.names:
            raise UsageError(f"no simplex {name!r}: there are {', '.join(self.names)}")
        lens, at = TripoleLens(self.d_model), self.names.index(name)
        lens.linear.weight.data.copy_(self.weight[at])
        lens.linear.bias.data.copy_(self.bias[at])
        return lens.eval()


def check_simplexes(rows: Sequence[SimplexRow], weight: Tensor, bias: Tensor, source: str) -> None:
    """Raise PackError unless rows count 0, 1, 2 …, names are unique and the tensors have a row for each."""
    names = [row.name.casefold() for row in rows]
    for at, row in enumerate(rows):
        if row.row != at or names.index(row.name.casefold()) != at:
            raise PackError(f"{source}: {row.name!r} is row {row.row} in place {at}: rows count up, each name once")
    n = len(rows)
    if not n or tuple(weight.shape[:2]) != (n, POLES) or weight.ndim != 3 or tuple(bias.shape) != (n, POLES):
        raise PackError(
            f"{source}: {n} simplexes need weight [{n}, 3, d_model] and bias [{n}, 3]; these are "
            f"{list(weight.shape)} and {list(bias.shape)}"
        )


def save_simplexes(
    folder: Path,
    rows: Sequence[SimplexRow],
    weight: Float[Tensor, "simplex 3 d_model"],
    bias: Float[Tensor, "simplex 3"],
) -> None:
    """Write simplexes.safetensors and simplexes.json into a pack's folder, each in one step.

    Raises PackError where rows and tensors do not fit, NumericError for what is not finite, StorageError.
    """
    check_simplexes(rows, weight, bias, str(folder / ROWS))
    for at, row in enumerate(rows):
        if not bool(weight[at].isfinite().all() & bias[at].isfinite().all()):
            raise NumericError(f"simplex {row.name!r} holds a NaN or an infinity: it is not saved")
    write_tensors(folder / WEIGHTS, {"weight": weight.float(), "bias": bias.float()}, {"format": FORMAT})
    body = b",\n".join(canonical_json(row.model_dump(mode="json", exclude_none=True)) for row in rows)
    write_atomically(folder / ROWS, b"[\n" + body + b"\n]\n")


def load_simplexes(folder: Path, *, device: torch.device | str = "cpu") -> TripoleBank | None:
    """The simplexes of a pack, None where it has none. Raises PackError, NumericError, StorageError."""
    file = folder / ROWS
    if not file.exists():
        return None
    value = read_json(file)
    if not isinstance(value, list):
        raise PackError(f"{file} is {type(value).__name__}, not a list of simplexes")
    rows = []
    for at, item in enumerate(value):
        try:
            rows.append(SimplexRow.model_validate(item))
        except ValidationError as error:
            raise PackError(f"{file} row {at}: {complaints(error)}") from error
    tensors = read_tensors(folder / WEIGHTS, ("weight", "bias"))
    check_simplexes(rows, tensors["weight"], tensors["bias"], str(file))
    for name, tensor in tensors.items():
        finite(tensor, [f"simplex {row.name!r}" for row in rows], f"{folder / WEIGHTS}: {name}")
    return TripoleBank(rows, tensors["weight"].to(device), tensors["bias"].to(device))
