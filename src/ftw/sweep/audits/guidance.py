"""Guidance: how the numbers of a run are to be read, from the audits that found something.

Graded: a note changes nothing, a caution changes what is preferred, only a serious finding takes numbers away. So a
sound run of an ordinary model is told so, and a flag that is set says something.

The rule of the file: each piece of advice follows from one finding, which it names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ftw.sweep.audits.catalogue import CATALOGUE, Concern
from ftw.sweep.audits.finding import SEVERITIES, Finding, Severity, worst

ADVICE: Mapping[str, str] = {
    "last_layer": "Do not use this run: its last row is not the model.",
    "numeric_health": "Leave out the rows that are not finite, or load the model in float32.",
    "repeatability": "Treat best tokens that lead by less than the reported change as ties.",
    "norm_views": "Give an onset as the range over the norm views, not as one layer.",
    "decoding_point": "Read onsets as accurate to the reported spread only.",
    "raw_vs_norm": "Take onsets that the raw view does not confirm for the norm's, until a learned lens confirms them.",
    "lens_agreement": "Report best tokens of middle layers from more than one lens.",
    "position_stability": "Put the prompt at several positions before reading its onset as a property of the model.",
    "next_token_depth": "Read the facts' onsets beside those of ordinary next tokens.",
    "onset_margin": "Use the strong onset: by rank alone the answer hardly stands above uniform.",
    "gate_stability": "Give strong onsets with the onset by rank beside them: the gates hang on the logits' scale.",
    "temperature": "Read divergences of layers whose temperature lies at the edge as lower bounds of the difference.",
    "learned_lens": "See how much of the learned lens's gain is temperature, and whether it ends at the model.",
    "learned_positions": "Use the learned lens at the positions that it was fitted on.",
    "skip_layers": "Do not take the learned lens for a short cut through the model.",
    "norm_trajectory": "Read layers around the flagged blocks through more than one norm.",
    "norm_provenance": "See the layer map for what each layer was read through.",
    "unembed_bias": "Compare logits only after the head's bias is taken off.",
    "copy_mask": "See the mask for which tokens never count as copies.",
}
"""What to do when an audit found something, by its name."""


@dataclass(frozen=True)
class Reason:
    """One finding that asks for something."""

    code: str
    subject: str | None
    """The learned lens that it is about, if any."""
    severity: Severity
    concerns: Concern
    reading: str
    advice: str

    def document(self) -> dict[str, Any]:
        """As it stands in a run's document."""
        return dict(vars(self))


@dataclass(frozen=True)
class Guidance:
    """What the audits come to."""

    severity: Severity
    """The worst of all findings that were measured."""
    reasons: tuple[Reason, ...]
    """Every finding that is not fine, the most serious first, then in the catalogue's order."""
    prefer_ranks: bool
    """Ranks rather than probabilities of middle layers: something about probabilities is a caution, or worse."""
    suppress_abs_probs: bool
    """Absolute probabilities of middle layers are not to be shown: something about them is serious."""
    onsets_as_ranges: bool
    """Onsets are to be given as ranges: something about onsets is a caution, or worse."""
    preferred_lens: str
    """The learned lens where it turns and does not merely cool, else `logit`."""
    use_confirmed_semantics: bool
    """Whether onsets that another lens confirms are to be preferred: the same, where another lens was read."""
    unmeasured: tuple[str, ...]
    """Audits that were not made. They are neither good nor bad."""

    @property
    def summary(self) -> str:
        """One line."""
        count = {each: sum(reason.severity == each for reason in self.reasons) for each in SEVERITIES[1:]}
        told = ", ".join(
            f"{number} {name}" if name == "serious" or number == 1 else f"{number} {name}s"
            for name, number in count.items()
            if number
        )
        return f"{self.severity}: {told or 'nothing to keep in mind'}; {len(self.unmeasured)} audits not measured."

    def document(self) -> dict[str, Any]:
        """The block `guidance` of a run's document."""
        return {
            "severity": self.severity,
            "summary": self.summary,
            "reasons": [reason.document() for reason in self.reasons],
            "prefer_ranks": self.prefer_ranks,
            "suppress_abs_probs": self.suppress_abs_probs,
            "onsets_as_ranges": self.onsets_as_ranges,
            "preferred_lens": self.preferred_lens,
            "use_confirmed_semantics": self.use_confirmed_semantics,
            "unmeasured": list(self.unmeasured),
        }


def guide(findings: Sequence[Finding]) -> Guidance:
    """The guidance from the findings."""
    order = list(CATALOGUE)
    asking = [each for each in findings if each.severity not in (None, "fine")]
    reasons = tuple(
        Reason(each.name, each.subject, each.severity, CATALOGUE[each.name].concerns, each.reading, ADVICE[each.name])
        for each in sorted(asking, key=lambda f: (-SEVERITIES.index(f.severity or "fine"), order.index(f.name)))
        if each.severity is not None
    )

    def level(concern: Concern) -> int:
        return max((SEVERITIES.index(each.severity) for each in reasons if each.concerns == concern), default=0)

    caution, serious = SEVERITIES.index("caution"), SEVERITIES.index("serious")
    others = any(each.name == "lens_agreement" and each.severity is not None for each in findings)
    return Guidance(
        severity=worst(*(each.severity for each in findings)) or "fine",
        reasons=reasons,
        prefer_ranks=level("probabilities") >= caution,
        suppress_abs_probs=level("probabilities") >= serious or level("run") >= serious,
        onsets_as_ranges=level("onsets") >= caution,
        preferred_lens=_preferred(findings),
        use_confirmed_semantics=others and level("onsets") >= caution,
        unmeasured=tuple(each.name for each in findings if each.severity is None),
    )


def _preferred(findings: Sequence[Finding]) -> str:
    """Of the learned lenses that turn and do not merely cool the one that turns most, else the logit lens."""
    gains = {
        each.subject: rotation
        for each in findings
        if each.name == "learned_lens" and each.subject is not None
        if each.figures["prefer"].value is True and isinstance(rotation := each.figures["rotation_p50"].value, float)
    }
    return max(gains, key=lambda lens: gains[lens], default="logit")
