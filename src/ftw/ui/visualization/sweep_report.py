"""The report of a sweep: what was asked, the answer, depth curves, ribbons, maps, lenses, audits, every prompt.

The rule of the file: everything here is read from a run's document and its rows. No model is needed to draw.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ftw.sweep.milestones.grid import LOGIT
from ftw.sweep.table import SweepTable
from ftw.ui.visualization.charts import percent, shown_token
from ftw.ui.visualization.figure import count
from ftw.ui.visualization.plots import Cell
from ftw.ui.visualization.report import Choice, Figure, Report, Table
from ftw.ui.visualization.sweep_audit import formulas, guidance, panel
from ftw.ui.visualization.sweep_curves import curves, lenses
from ftw.ui.visualization.sweep_figure import reading
from ftw.ui.visualization.sweep_map import maps
from ftw.ui.visualization.sweep_numbers import CLOSE, COPY, ONSET, Asked, Run, thinned
from ftw.ui.visualization.sweep_ribbons import MOST_ROWS, by_group, by_lens, prompts
from ftw.ui.visualization.sweep_tables import statistics_tables

MOST_PROMPTS = 400
"""Rows of the table of prompts: the others stand in `rows.parquet` and `run.json`."""


def report(document: Mapping[str, Any], table: SweepTable) -> Report:
    """The report of a finished run. Raises ConfigError where the two are not of one run, or of another version."""
    run = Run(document, table)
    return Report(
        title=reading(run),
        asked=_asked(run),
        answer=_answer(run),
        figures=figures(run),
        tables=tables(run),
        methods=_methods(run),
        provenance=_provenance(run),
        command=str(document.get("command") or f"ftw sweep {run.document['model']['name']}"),
    )


def figures(run: Run) -> list[Figure | Choice]:
    """Every figure that the run has numbers for: ribbons, curves, maps, lenses, groups."""
    chosen = run.by_onset or run.prompts
    drawn = [
        prompts(run, thinned(run.by_onset, MOST_ROWS)),
        *curves(run),
        maps(run, thinned(chosen, MOST_ROWS)),
        lenses(run),
        by_lens(run),
        by_group(run),
    ]
    return [figure for figure in drawn if figure is not None]


def tables(run: Run) -> list[Table]:
    """The panel of audits, what the statistics say, and every prompt."""
    return [*panel(run), *statistics_tables(run), *_prompts(run), *formulas(run)]


def _asked(run: Run) -> str:
    model, battery = run.document["model"], run.document.get("battery") or {}
    facts = len({(one.relation, one.fact) for one in run.facts})
    kinds = {kind: sum(one.kind == kind for one in run.prompts) for kind in ("control", "probe")}
    said = [f"{count(len(run.facts), 'prompt')} about {count(facts, 'fact')}"] if facts else []
    said += [count(n, kind) for kind, n in kinds.items() if n]
    called = f" of the battery {battery['name']} {battery['version']}" if battery else ""
    return (
        f"Which next token would {model['name']} emit if it stopped at each of its {model['n_layers']} blocks, when "
        f"does the answer appear, and is it copied or meant? Asked with {_joined(said)}{called}, read through "
        f"{_listed(run.lenses)}."
    )


def _joined(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)


def _listed(names: Sequence[str]) -> str:
    return f"the {_joined(names)} {'lens' if len(names) == 1 else 'lenses'}"


def _answer(run: Run) -> tuple[str, ...]:
    """One to three sentences: the onset, copying and chance, and what the audits ask for."""
    said = [f"{reading(run)}."]
    if run.facts:
        said.append(_copying(run))
    if advice := guidance(run):
        said.append(advice)
    return tuple(said)


def _copying(run: Run) -> str:
    """What there is of copying, and how long before the onset."""
    copies = [copy for one in run.facts if (copy := one.value(COPY)) is not None]
    of = count(len(run.facts), "prompt")
    if not copies:
        soft = sum(one.value(run.soft_copy) is not None for one in run.facts)
        return f"No block copies a word of the prompt strictly; {soft} of {of} are copied loosely."
    at_once = sum(copy == 0 for copy in copies)
    early = f" ({at_once} of them at the embedding already)" if at_once else ""
    both = [
        onset - copy
        for one in run.facts
        if (onset := one.value(ONSET)) is not None and (copy := one.value(COPY)) is not None
    ]
    after = f"; the answer comes first a median of {statistics.median(both):.3g} blocks later" if both else ""
    return f"Some block copies a word of the prompt in {len(copies)} of {of}{early}{after}."


def _prompts(run: Run) -> list[Table]:
    ends = {row["prompt"]: row for row in run.last.where(lens=LOGIT, layer=run.n).rows()}
    rows: list[tuple[Cell, ...]] = []
    for one in run.prompts[:MOST_PROMPTS]:
        end = ends[one.row]
        p = math.exp(end["answer_logprob"]) if one.has_answer else None
        rows.append(
            (
                one.text.strip(),
                one.answer or None,
                shown_token(end["top_tokens"][0]),
                None if p is None else percent(p),
                _layer(one, ONSET),
                _layer(one, "semantic_strong"),
                _layer(one, run.soft_copy),
                _layer(one, CLOSE),
                one.id,
            )
        )
    heads = ("prompt", "answer", "model says", "p(answer)", "onset", "strong", "soft copy", "KL ≤ 1 bit", "id")
    note = (
        "Onset: the first block that ranks the answer's first token first; strong: with a clear margin. A dash with a "
        "word is a milestone that there is not, and why. Through the logit lens."
    )
    if len(run.prompts) > MOST_PROMPTS:
        note += f" The first {MOST_PROMPTS} of {len(run.prompts)}; all of them stand in run.json."
    return [Table("Every prompt", heads, tuple(rows), note)] if rows else []


def _layer(one: Asked, name: str) -> Cell:
    value = one.value(name)
    if value is not None:
        return int(value)
    why = one.why(name)
    return None if why == "no_answer" else f"– {why.replace('_', ' ')}"


def _methods(run: Run) -> tuple[str, ...]:
    gate = run.table.gate
    document = run.document
    chosen = document.get("thresholds") or {}
    return (
        "Each distinct prompt runs through the model once. The stream after every block is read by the model's own "
        f"final norm, head and logit transform (the logit lens; block {run.n} is the model itself), and by the other "
        "lenses named above. The identity gate compared the last reading with the model's logits before anything was "
        f"swept: largest difference {gate.max_abs_error:.1e} logits, {gate.kl_bits:.1e} bits.",
        "Ranks and probabilities are those of the answer's first token. KL and entropy are in bits, over the whole "
        f"vocabulary of {run.table.vocab_size} tokens. A rank by chance has the median {run.chance_rank:.0f}.",
        f"Strict copy: one token of the prompt above {chosen.get('copy_p', 0.95):g} and "
        f"{chosen.get('copy_margin', 0.1):g} ahead of the next; soft copy: above {chosen.get('soft_p', 0.33):g}. A "
        f"strong onset leads the second token by {chosen.get('top2_gap', 0.5):g} logits and uniform by "
        f"{chosen.get('uniform_margin', 0.002):g}. Every threshold, and every number with its reason where it is "
        "missing, stands in run.json; every row in rows.parquet.",
        "A block's reading says what the head would make of the stream there. It does not say that later blocks use "
        "it: that takes an intervention.",
    )


def _provenance(run: Run) -> dict[str, str]:
    document = run.document
    model, battery = document["model"], document.get("battery") or {}
    made = document.get("provenance") or {}
    facts = {
        "Model": f"{model['name']} {str(model['fingerprint'])[:8]} ({model.get('architecture', '')})",
        "Shape": f"{model['n_layers']} blocks, d {model['d_model']}, vocabulary {model['vocab_size']}",
        "Battery": f"{battery['name']} {battery['version']} {str(battery.get('digest', ''))[:8]}" if battery else "",
        "Rows": f"{len(run.table)} in rows.parquet, precision {run.table.precision}",
        "Notes": "; ".join(document.get("notes") or ()),
        **{name.replace("_", " ").capitalize(): _flat(value) for name, value in made.items()},
        "Started": str(document.get("started") or ""),
        "Seconds": f"{document['seconds']:.1f}" if document.get("seconds") else "",
    }
    return {name: value for name, value in facts.items() if value}


def _flat(value: Any) -> str:
    """A value of the provenance on one line; a record's name comes first."""
    if isinstance(value, Mapping):
        rest = [
            f"{key} {_flat(each)}" for key, each in value.items() if key != "name" and each not in (None, "", {}, [])
        ]
        said = ", ".join(rest)
        return f"{value['name']} ({said})" if value.get("name") else said
    if isinstance(value, list | tuple):
        return ", ".join(_flat(each) for each in value)
    return "" if value is None else str(value)
