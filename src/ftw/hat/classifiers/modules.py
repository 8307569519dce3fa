"""What a lens computes: the shared normalisation of its input, the MLP that reads it, the linear probe.

The rule of the file: modules answer logits, never probabilities, and take normalised input. Whoever feeds a lens calls
`normalise` first: it is part of the lens contract, for training, calibration and serving alike.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

HIDDEN = 128
"""Width of a lens's first layer."""
NARROW = 64
"""Width of its second."""
EPS = 1e-5


def normalise(resid: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
    """Each state with mean 0 and variance 1 over d_model: LayerNorm without affine terms, eps 1e-5, in fp32.

    Deep blocks carry values thousands of times larger than shallow ones; without this, lenses do not train.
    """
    return F.layer_norm(resid.float(), resid.shape[-1:], eps=EPS)


class MLP(nn.Module):
    """One lens: D -> 128 -> 64 -> 1 with ReLU. Dropout acts while training only."""

    def __init__(self, d_model: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.first = nn.Linear(d_model, HIDDEN)
        self.second = nn.Linear(HIDDEN, NARROW)
        self.last = nn.Linear(NARROW, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch"]:
        """The logit of each normalised state."""
        z: Tensor = self.dropout(torch.relu(self.first(x)))
        z = self.dropout(torch.relu(self.second(z)))
        logit: Tensor = self.last(z)
        return logit.squeeze(-1)


class LinearProbe(nn.Module):
    """The baseline that every lens must beat, and the screen that goes before the MLP: one weight per channel."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.linear = nn.Linear(d_model, 1)

    def forward(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch"]:
        """The logit of each normalised state."""
        logit: Tensor = self.linear(x)
        return logit.squeeze(-1)

    def as_mlp(self) -> MLP:
        """The same logits from the form that packs hold: relu(z) - relu(-z) = z, so two units are enough. Exact."""
        weight, bias = self.linear.weight.detach(), self.linear.bias.detach()
        made = MLP(weight.shape[1]).to(weight.dtype)
        for parameter in made.parameters():
            parameter.data.zero_()
        made.first.weight.data[:2] = torch.cat([weight, -weight])
        made.first.bias.data[:2] = torch.cat([bias, -bias])
        made.second.weight.data[:2, :2] = torch.eye(2, dtype=weight.dtype)
        made.last.weight.data[0, :2] = torch.tensor([1.0, -1.0])
        return made.eval()

    @property
    def direction(self) -> Float[Tensor, " d_model"]:
        """The unit vector along which the probe's logit grows, in normalised space."""
        return F.normalize(self.linear.weight.detach().float()[0], dim=0)
