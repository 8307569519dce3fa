"""Thresholds: every number that a milestone, an audit or a flag compares with, in one object.

Most define a figure. Those that begin with `grade_` say from which value on an audit's figure is a note, a caution,
serious: chosen so that a sound run of a trained model draws few cautions, and that each step asks for another way of
reading.

The rule of the file: a threshold stands here once. The object is written into the run, and read back from it.
"""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, model_validator

from ftw.substrate.config import Strict

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
"""A probability, or a part of a whole."""
Size = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""A finite number that is not negative."""
Cosine = Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Each = TypeVar("Each", int, float)


def _once(values: tuple[Each, ...]) -> tuple[Each, ...]:
    if len(set(values)) < len(values):
        raise ValueError(f"{list(values)} names a threshold twice: name each once")
    return values


def _falling(values: tuple[float, float]) -> tuple[float, float]:
    if values[0] < values[1]:
        raise ValueError(f"{list(values)} rises: the stricter one comes first")
    return values


def _rising(values: tuple[Each, Each]) -> tuple[Each, Each]:
    if values[0] > values[1]:
        raise ValueError(f"{list(values)} falls: the smaller one comes first")
    return values


Shares = Annotated[tuple[Share, ...], AfterValidator(_once)]
Sizes = Annotated[tuple[Size, ...], AfterValidator(_once)]
Cosines = Annotated[tuple[Cosine, ...], AfterValidator(_once)]
Counts = Annotated[tuple[Count, ...], AfterValidator(_once)]
Scale = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _ascending(values: tuple[float, float, float]) -> tuple[float, float, float]:
    if list(values) != sorted(values):
        raise ValueError(f"{list(values)} falls: steps ascend from note over caution to serious")
    return values


Steps = Annotated[tuple[Size, Size, Size], AfterValidator(_ascending)]
"""A value above the first is a note, above the second a caution, above the third serious."""


class Thresholds(Strict):
    """What counts as copying, as meaning, as stable. The defaults are those of the published suite.

    `Thresholds.read(values, source=…)` gives those of a file or of a run's document, and raises ConfigError that names
    a key that is not known, a number out of its range, or a list that repeats itself.
    """

    copy_p: Share = 0.95
    """Strict copy: the best token's probability is above this."""
    copy_margin: Share = 0.10
    """Strict copy: the best token's probability leads the second's by more than this."""
    copy_window: Count = 1
    """Strict copy: the best tokens of so many consecutive layers stand in the prompt in this order."""
    copy_sweep: Shares = (0.7, 0.8, 0.9, 0.95)
    """Strict copy is looked for at each of these too, with a window of 1."""
    copy_stable_layers: Count = 2
    """The sweep's ends are stable when they lie within so many layers…"""
    copy_stable_share: Share = 0.05
    """… or within this share of the depth."""
    copy_fragile_layers: Count = 6
    """They are fragile when they lie at least so many layers apart…"""
    copy_fragile_share: Share = 0.15
    """… or this share of the depth."""
    soft_p: Share = 0.33
    """Soft copy: the best token's probability is above this."""
    soft_windows: Counts = (1, 2, 3)
    """Soft copy: windows over consecutive layers."""
    soft_extra: Shares = ()
    """Soft copy: further probabilities, each with every window."""
    low_entropy_bits: Size = 1.0
    """A distribution with at most so many bits is nearly decided."""
    uniform_margin: Share = 0.002
    """The answer's probability exceeds 1/V by at least this."""
    top2_gap: Size = 0.5
    """The best token leads the second by at least so many logits (nats)."""
    answer_gaps: Sizes = (0.5, 1.0)
    """The answer leads the second by so many logits."""
    kl_bits: Sizes = (1.0, 0.5)
    """Divergence from the model's own distribution is at most this."""
    ranks: Counts = (10, 5, 1)
    """The answer's rank is at most this."""
    cosines: Cosines = (0.2, 0.4, 0.6)
    """The cosine of centred logits to the model's own is at least this."""
    surface_margin: Share = 0.05
    """The answer's probability exceeds that of the prompt's words by at least this."""
    geometry_margin: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] = 0.02
    """The cosine to the answer's head row exceeds the largest one to the prompt's words by at least this."""
    coverage_k: Literal[50] = 50
    """The prompt's words among so many best tokens: the table's column is made for 50."""
    coverage_p: Share = 0.33
    """Coverage has decayed when that mass is at most this."""
    confirm_window: Annotated[int, Field(ge=0)] = 2
    """Another lens confirms an onset when it ranks the answer first within so many layers of it."""
    gate_scales: Annotated[tuple[Scale, ...], AfterValidator(_once), Field(min_length=1)] = (0.9, 0.95, 1.05, 1.1)
    """Logits are multiplied by these to see whether a gate still holds."""
    gate_stable_share: Share = 0.75
    """A gate is stable when it holds at this share of the scales."""
    depths: Shares = (0.25, 0.5, 0.75)
    """Depth fractions and percentiles that figures are given at."""
    interval_level: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] = 0.95
    """Coverage of bootstrap intervals."""
    resamples: Count = 2000
    """Bootstrap resamples of the facts."""
    permutations: Count = 1000
    """Shuffles of the answers among the prompts of a relation."""
    few: Count = 3
    """An interval needs at least so many facts."""
    last_kl_bits: Size = 0.25
    """A last row this far from the model's own distribution is a warning."""
    raw_kl_bits: Annotated[tuple[Size, Size], AfterValidator(_falling)] = (1.0, 0.5)
    """KL(normalised || raw): from the first on the risk of an artefact is high, from the second medium."""
    raw_js_bits: Size = 0.1
    """Raw and normalised lens agree up to this Jensen-Shannon divergence…"""
    raw_l1: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] = 0.5
    """… and up to this sum of absolute differences of probability…"""
    raw_jaccard: Share = 0.5
    """… and from this overlap of the 50 best tokens on."""
    raw_radius: Annotated[tuple[Count, Count], AfterValidator(_rising)] = (4, 8)
    """Layers around a milestone that are compared; the second where the risk is high."""
    artefact_tiers: Annotated[tuple[Share, Share], AfterValidator(_rising)] = (0.2, 0.5)
    """An artefact score below the first is low, up to the second medium, above it high."""
    flat_share: Share = 0.9
    """A row is flat when its entropy exceeds this share of log2 V."""
    agreement: Share = 0.3
    """Two lenses agree at a milestone when Jaccard@10 and the rank correlation are at least this."""
    rank_deviation: Annotated[int, Field(ge=0)] = 5
    """Decoded again, a best token may fall so many ranks."""
    flip_share: Share = 0.02
    """Decoded again, the best token may change in this share of the rows."""
    position_share: Share = 0.5
    """An onset is stable over positions when it is found at this share of them."""
    same_onset_layers: Annotated[int, Field(ge=0)] = 1
    """Views cut a block at different places: onsets that are at most so many layers apart are the same onset."""
    spike_factor: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 2.0
    """A block out of line changes the stream's length by more than this factor beyond what the others do…"""
    spike_deviations: Size = 3.0
    """… and by more than so many of the others' standard deviations (1.4826 x their median absolute deviation)."""
    rotation_bits: Size = 0.2
    """A learned lens helps by more than temperature when it takes so many bits off the divergence."""
    calibration_share: Share = 0.8
    """It is calibration only when a temperature alone takes off at least this share of what it takes off."""
    earlier_layers: Count = 2
    """It is preferred when it has the answer among the five best so many layers earlier, too."""
    position_gap_bits: Size = 1.0
    """Its gain early in the prompts and at their ends may differ by less than this."""
    skip_share: Size = 0.2
    """Read through it without the last 2 blocks, the answers' perplexity may rise by this share."""
    grade_spread: Steps = (0.05, 0.15, 0.35)
    """Median spread of the onset over norm views, as a share of the depth."""
    grade_inconsistent: Steps = (0.1, 0.3, 0.6)
    """Share of facts whose onset depends on the decoding point."""
    grade_norm_only: Steps = (0.1, 0.3, 0.6)
    """Share of onsets that the raw view does not confirm."""
    grade_disagreement: Steps = (0.1, 0.3, 0.6)
    """Share of facts at which two lenses disagree about the best tokens at the onset."""
    grade_unstable_positions: Steps = (0.25, 0.5, 0.75)
    """Share of shifted prompts that lose the onset."""
    grade_thin_onsets: Steps = (0.1, 0.3, 0.6)
    """Share of onsets that are first by rank alone, hardly above uniform."""
    grade_scale_sensitive: Steps = (0.1, 0.3, 0.6)
    """Share of strong onsets whose gates fall when logits are rescaled a little."""
    grade_flips: Steps = (0.0, 0.02, 0.1)
    """Share of rows whose best token changes when decoded again alone."""
    grade_not_finite: Steps = (0.0, 0.001, 0.05)
    """Share of rows with a NaN or an infinity."""
    grade_last_row_bits: Steps = (1e-3, 0.05, 0.25)
    """Largest divergence of the last row from the model's own distribution."""
    grade_spikes: Steps = (0.05, 0.15, 0.35)
    """Share of blocks that change the stream's length out of step with the others."""
    grade_bias: Steps = (0.0, 1.0, 5.0)
    """Largest entry of the head's bias, logits."""
    grade_calibration: Steps = (0.5, 0.8, 0.95)
    """Share of a learned lens's gain that is no rotation."""

    @model_validator(mode="after")
    def _apart(self) -> "Thresholds":
        if self.soft_p in self.soft_extra:
            raise ValueError(f"soft_extra holds {self.soft_p}, which is soft_p already: leave it out there")
        return self

    def document(self) -> dict[str, Any]:
        """Every threshold by name, as plain JSON values: what stands in `run.json` under `thresholds`."""
        return self.model_dump(mode="json")
