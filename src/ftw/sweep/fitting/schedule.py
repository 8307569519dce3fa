"""Schedule: how long a lens is fitted, on how much text, and with which steps. One object, stored with the lens.

The rule of the file: every count and every rate of a fit is computed here, and nowhere else.
"""

import math

from pydantic import Field, model_validator

from ftw.substrate.config import Strict


class Schedule(Strict):
    """A fit's schedule. A step takes `rows * accumulate` positions and moves the parameters once."""

    steps: int = Field(default=400, ge=1)
    """Moves of the parameters, at most: early stopping may end the fit before."""
    warmup: int = Field(default=20, ge=0)
    """Steps over which the rate rises from near zero to `lr`."""
    lr: float = Field(default=2e-3, gt=0, allow_inf_nan=False)
    """The highest rate. States enter standardised, so that one rate suits every layer of every model."""
    floor: float = Field(default=0.0, ge=0, le=1)
    """The share of `lr` that a cosine falls to at the last step."""
    rows: int = Field(default=256, ge=1)
    """Positions of one micro-batch."""
    accumulate: int = Field(default=1, ge=1)
    """Micro-batches of one step: their gradients are averaged."""
    clip: float = Field(default=1.0, gt=0)
    """The longest gradient of a layer; layers are fitted side by side, so each is clipped by itself."""
    weight_decay: float = Field(default=1e-3, ge=0, allow_inf_nan=False)
    """Pulls a translator towards doing nothing, that is to the logit lens. The bias is left alone."""
    betas: tuple[float, float] = (0.9, 0.99)
    """AdamW's. The second is short: a few hundred steps are all there are."""
    length: int = Field(default=128, ge=2)
    """Tokens of a window, at most."""
    share: float = Field(default=0.5, gt=0, le=1)
    """How many of a window's positions are used, drawn anew each time: neighbours say much the same."""
    heldout: int = Field(default=2048, ge=8)
    """Held-out positions, half of them for stopping, half for the figures that are reported."""
    check_every: int = Field(default=40, ge=1)
    """Steps between two looks at the first half."""
    patience: int = Field(default=6, ge=1)
    """Looks in a row without gain on any layer after which the fit ends."""

    @model_validator(mode="after")
    def _warmup_fits(self) -> "Schedule":
        if self.warmup >= self.steps:
            raise ValueError(
                f"warmup is {self.warmup}, but there are only {self.steps} steps: give fewer, or more steps"
            )
        return self

    def rate(self, step: int) -> float:
        """The rate of step 0, 1, …: up in a line over the warmup, down in a cosine to `floor * lr` at the last one."""
        if step < self.warmup:
            return self.lr * (step + 1) / (self.warmup + 1)
        left = self.steps - 1 - self.warmup
        done = (step - self.warmup) / left if left else 0.0
        return self.lr * (self.floor + (1 - self.floor) * (1 + math.cos(math.pi * min(done, 1.0))) / 2)

    @property
    def positions_per_step(self) -> int:
        """Positions that one step looks at."""
        return self.rows * self.accumulate

    @property
    def positions(self) -> int:
        """Positions that all steps look at."""
        return self.steps * self.positions_per_step
