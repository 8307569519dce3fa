"""One sweep of the bundled model for all audits that run it."""

from collections.abc import Sequence

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from ftw.substrate.model import Model, load
from ftw.substrate.unembed import head_input
from ftw.sweep import forward
from ftw.sweep.battery import Battery
from ftw.sweep.lenses.views import view
from ftw.sweep.run import Sweep
from ftw.sweep.table import SweepTable

TEXTS = (
    "Once upon a time there was a small dog who lived in a house by the river.",
    "The king of the city gave the old man a horse, and the man went home.",
    "A knife is a kind of tool. A rose is a kind of flower, and a flower is a plant.",
    "The capital of Spain is Madrid, and the people there speak Spanish.",
)


class Cooled:
    """The logit lens with its logits divided by a constant: all that it changes is a temperature."""

    digest = "cooled"

    def __init__(self, model: Model, tau: float, name: str = "cooled") -> None:
        self.arch, self.tau, self.name = model.arch, tau, name
        self.layers = range(model.n_layers + 1)

    def head_inputs(
        self, resid: Float[Tensor, "layer row d_model"], layers: Sequence[int]
    ) -> Float[Tensor, "layer row width"]:
        """Divided, but for the last layer: there every lens is the model."""
        h = head_input(self.arch, resid)
        scale = torch.tensor([1.0 if layer == self.arch.n_layers else self.tau for layer in layers])
        return h / scale[:, None, None]


class Turned:
    """A linear map per layer to the last layer's stream, by least squares over some states."""

    digest = "turned"
    name = "turned"

    def __init__(self, model: Model, states: Float[Tensor, "layer row d_model"]) -> None:
        self.arch = model.arch
        self.layers = range(model.n_layers + 1)
        ridge = 1e-4 * torch.eye(model.d_model, dtype=torch.float64)
        self.maps = [
            torch.linalg.solve(x.T @ x + ridge * x.square().mean() * len(x), x.T @ states[-1].double()).float()
            for x in states.double()
        ]

    def head_inputs(
        self, resid: Float[Tensor, "layer row d_model"], layers: Sequence[int]
    ) -> Float[Tensor, "layer row width"]:
        """The mapped stream through the model's tail."""
        last = self.layers[-1]
        moved = [x.float() if at == last else x.float() @ self.maps[at] for x, at in zip(resid, layers, strict=True)]
        return head_input(self.arch, torch.stack(moved))


@pytest.fixture(scope="session")
def model() -> Model:
    return load("reference")


@pytest.fixture(scope="session")
def heldout(model: Model) -> Float[Tensor, "layer row d_model"]:
    """States of text that no prompt here holds."""
    return forward.read(model, [model.encode(text) for text in TEXTS], positions="all").states.clone()


@pytest.fixture(scope="session")
def sweep(model: Model) -> Sweep:
    return Sweep(model, [Cooled(model, 3.0)], at_end=[view(model, "next"), view(model, "raw")], k=10)


@pytest.fixture(scope="session")
def table(sweep: Sweep) -> SweepTable:
    """Ten facts and their controls, at every position."""
    prompts = [prompt for prompt in Battery.read("reference").prompts() if prompt.kind != "probe"]
    return sweep.run(prompts[::37], positions="all")
