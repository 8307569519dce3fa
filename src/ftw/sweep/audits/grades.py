"""Grades: from which value on an audit's figure is a note, a caution, serious.

Chosen so that a sound run of a trained model draws few cautions, and so that each step asks for another way of
reading: see the catalogue for what a finding concerns. Thresholds that define a figure stand in `Thresholds`.

The rule of the file: three ascending steps per figure, and the whole object is written into the run.
"""

from typing import Annotated, Any

from pydantic import Field, model_validator

from ftw.substrate.config import Strict

Step = Annotated[float, Field(allow_inf_nan=False)]
Steps = tuple[Step, Step, Step]
"""A value above the first is a note, above the second a caution, above the third serious."""


class Grades(Strict):
    """The steps of every graded figure. A ValidationError names a key that is not known and steps that fall."""

    spread: Steps = (0.05, 0.15, 0.35)
    """Median spread of the onset over norm views, as a share of the depth."""
    inconsistent: Steps = (0.1, 0.3, 0.6)
    """Share of prompts whose onset depends on the decoding point."""
    norm_only: Steps = (0.1, 0.3, 0.6)
    """Share of onsets that the raw view does not confirm."""
    disagreement: Steps = (0.1, 0.3, 0.6)
    """Share of prompts at which two lenses disagree about the best tokens at the onset."""
    unstable_positions: Steps = (0.25, 0.5, 0.75)
    """Share of shifted prompts that lose the onset."""
    thin_onsets: Steps = (0.1, 0.3, 0.6)
    """Share of onsets that are first by rank alone, hardly above uniform."""
    scale_sensitive: Steps = (0.1, 0.3, 0.6)
    """Share of onsets whose gates fall when logits are rescaled a little."""
    flips: Steps = (0.0, 0.02, 0.1)
    """Share of rows whose best token changes when decoded again alone."""
    not_finite: Steps = (0.0, 0.001, 0.05)
    """Share of rows with a NaN or an infinity."""
    last_row_bits: Steps = (1e-3, 0.05, 0.25)
    """Largest divergence of the last row from the model's own distribution."""
    spikes: Steps = (0.05, 0.15, 0.35)
    """Share of blocks that change the stream's length out of step with the others."""
    bias: Steps = (0.0, 1.0, 5.0)
    """Largest entry of the head's bias, logits."""
    calibration: Steps = (0.5, 0.8, 0.95)
    """Share of a learned lens's gain that is no rotation."""

    @model_validator(mode="after")
    def _ascend(self) -> "Grades":
        for name in type(self).model_fields:
            steps = getattr(self, name)
            if list(steps) != sorted(steps):
                raise ValueError(f"{name} is {list(steps)}: steps ascend")
        return self

    def document(self) -> dict[str, Any]:
        """Every figure's steps by name."""
        return self.model_dump(mode="json")
