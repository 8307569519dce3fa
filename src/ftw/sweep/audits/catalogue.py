"""Catalogue: every audit's title, formula and unit, and which numbers of a run it concerns.

The rule of the file: a formula stands here once; the report, the run's document and the manual take it from here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Concern = Literal["onsets", "probabilities", "learned lenses", "run"]
"""`onsets`: at which layer the answer appears. `probabilities`: absolute probabilities and divergences of middle
layers. `learned lenses`: what a tuned or prism lens adds. `run`: whether the numbers can be had again at all."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What an audit is, before anything is measured."""

    title: str
    formula: str
    unit: str
    concerns: Concern
    needs_model: bool = False
    """Whether rows alone do not suffice."""


CATALOGUE: Mapping[str, Entry] = {
    "last_layer": Entry(
        "Is the last row the model?",
        "max over prompts of KL(model's logits || row n); again after the best temperature (golden section on ln τ in "
        "[0.05, 20]), and without the model's own scale and softcap",
        "bits",
        "run",
        True,
    ),
    "numeric_health": Entry(
        "Are all rows finite?",
        "share of rows with a NaN or infinity; 99th percentile of |largest logit|; 1st percentile of the answer's "
        "probability; bound on what a fast product loses",
        "share of rows; logits; nats",
        "run",
    ),
    "repeatability": Entry(
        "Do the numbers come again?",
        "the run's prompts again together (bits equal?), and each alone: share of rows whose best token changes, "
        "rank that it falls to, largest |Δ log-probability|",
        "share of rows; ranks; nats",
        "run",
        True,
    ),
    "norm_views": Entry(
        "Does the onset depend on the norm?",
        "onset of a view = first layer that ranks the answer first; spread = latest - earliest over logit, next, own, "
        "raw; graded: median over facts / n",
        "layers; share of depth",
        "onsets",
    ),
    "decoding_point": Entry(
        "Does the onset depend on where the stream is decoded?",
        "spread of the onset over the views with a norm (logit, next, own); consistent: an onset under each, at most "
        "1 layer apart; graded: share of facts that are not, of those with an onset under any",
        "layers; share of facts",
        "onsets",
    ),
    "raw_vs_norm": Entry(
        "Is an early answer made by the norm?",
        "per fact over layers where not both lenses are flat (entropy > 0.9 log2 V): v1 = 0.6 share(KL(logit || raw) "
        ">= 1 bit) + 0.3 [an onset layer that raw does not rank first] + 0.1 min(1, max KL / 5); "
        "v2 = min(1, v1 + 0.1 min(1, median JS / 0.1) + 0.05 min(1, median L1 / 0.5)); graded: share of onsets "
        "that raw does not rank first within 2 layers either side",
        "0 to 1; bits",
        "onsets",
    ),
    "lens_agreement": Entry(
        "Do the lenses list the same tokens?",
        "Jaccard of the 10 and 50 best tokens, Spearman's rank correlation of the logit lens's 50 best, against the "
        "logit lens at rank <= 10, rank <= 5, onset and strong onset; low: Jaccard@10 or correlation under 0.3 at an "
        "onset; graded: share of facts that are low under the worst norm view",
        "0 to 1; -1 to 1",
        "onsets",
    ),
    "position_stability": Entry(
        "Is the answer there wherever the prompt stands?",
        "the prompt moved 1, 2, 4 and 8 positions to the right by line breaks before it: share of the shifts at which "
        "the model's answer is still first and the onset's layer still ranks it first, of those where the model does",
        "share of shifts",
        "onsets",
        True,
    ),
    "next_token_depth": Entry(
        "How deep is an ordinary next token decided?",
        "over positions at which the model ranks the text's next token first: share at which the logit lens already "
        "does at the median onset, and the median of the first such layer",
        "share of positions; layers",
        "onsets",
    ),
    "onset_margin": Entry(
        "Is the onset more than a rank?",
        "share of facts whose onset has p(answer) - 1/V under the uniform margin; probability, margin and gap there",
        "share of facts; probability; nats",
        "probabilities",
    ),
    "gate_stability": Entry(
        "Do the gates hold when logits are rescaled?",
        "of the scales s in 0.9, 0.95, 1.05, 1.1 the share at which p_s(answer) - 1/V >= uniform margin and "
        "s (z_answer - z_second) >= top-2 gap, at the onset, the strong onset and both layers of a strong run; graded: "
        "share of strong onsets under 0.75",
        "share of scales",
        "probabilities",
    ),
    "temperature": Entry(
        "How far is a layer merely too hot or too cold?",
        "τ_l fitted on held-out text; gain = KL(logit_l || model) - KL(softmax(z_l / τ_l) || model), medians over "
        "facts",
        "τ without unit; bits",
        "probabilities",
        True,
    ),
    "learned_lens": Entry(
        "What does a learned lens add beyond temperature?",
        "total = KL(logit) - KL(lens); temperature = KL(logit) - KL(logit at τ); rotation = KL(logit at τ) - KL(lens "
        "at its own τ); interaction = total - temperature - rotation; calibration only: rotation < 0.2 bits and "
        "temperature >= 0.8 total; preferred: not that, KL at layer n <= 0.25 bits, and rotation at half depth >= 0.2 "
        "bits or the answer among the five best 2 layers earlier; medians over facts, at depths and over all layers",
        "bits",
        "learned lenses",
        True,
    ),
    "learned_positions": Entry(
        "Does a learned lens help wherever it is used?",
        "median of KL(logit) - KL(lens) over layers at 20, 40, 60, 80, 92, 96, 98 and 100 % of each prompt; gap = "
        "median at <= 92 % - median at >= 96 %",
        "bits",
        "learned lenses",
    ),
    "skip_layers": Entry(
        "Can the last blocks be skipped through a learned lens?",
        "with the last m = 2, 4, 8 blocks skipped (layer n - m through the lens): exp(mean NLL of the answer) over the "
        "model's, minus 1",
        "relative perplexity",
        "learned lenses",
    ),
    "norm_trajectory": Entry(
        "How does the stream grow?",
        "least squares of ln(median |residual|) on the layer: slope, r2; spike: a block whose ln growth is off the "
        "median of all by more than max(ln 2, 4.45 MAD), the first and the last block aside",
        "per layer; share of blocks",
        "probabilities",
    ),
    "norm_provenance": Entry(
        "Which norm was each layer read through?",
        "per lens and layer the modules before the head, |head input| / |residual|, and their cosine where widths "
        "agree",
        "ratio; cosine",
        "run",
        True,
    ),
    "unembed_bias": Entry(
        "Does the head's bias speak?",
        "of the head's bias: present, length, largest entry; share of the logit lens's rows whose best token is the "
        "one that it favours most",
        "logits",
        "probabilities",
        True,
    ),
    "copy_mask": Entry(
        "Which tokens never count as words?",
        "ids of special tokens and of pieces that hold only blanks, punctuation and symbols: number, sha256 over the "
        "canonical JSON of the ascending ids, and a few of them",
        "tokens",
        "run",
        True,
    ),
}
"""In the order in which they are shown."""
