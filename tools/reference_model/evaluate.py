"""All figures of the model card, measured on a model folder and written to its ``eval.json``."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ftw.map.ontology.wordnet import WordNet
from tools.reference_model import knowledge, probes, text, tree
from tools.reference_model.corpus import Document
from tools.reference_model.steering import steering
from tools.reference_model.subject import Subject

SECTIONS = (
    "capitals",
    "hypernyms",
    "opposites",
    "quality",
    "refusals",
    "validation",
    "tree_probes",
    "family_probes",
    "steering",
    "tracking",
    "membership",
    "samples",
)


def weights_digest(folder: Path) -> str:
    """SHA-256 of the weights file."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def evaluate(folder: Path, wn: WordNet, held: list[Document], only: Sequence[str] = SECTIONS) -> dict[str, Any]:
    """Measure the sections asked for; the result names the date and the very weights."""
    unknown = set(only) - set(SECTIONS)
    if unknown:
        raise ValueError(f"no such sections: {sorted(unknown)}; there are {', '.join(SECTIONS)}")
    subject, twin = Subject(folder), Subject(folder, is_random_twin=True)
    measures: dict[str, Callable[[], Any]] = {
        "capitals": lambda: knowledge.capitals(subject),
        "hypernyms": lambda: knowledge.hypernyms(subject, wn),
        "opposites": lambda: knowledge.opposites(subject),
        "quality": lambda: text.quality(subject),
        "refusals": lambda: text.refusals(subject),
        "validation": lambda: text.validation(subject, held),
        "tree_probes": lambda: probes.tree_probes(subject, twin, tree.read()),
        "family_probes": lambda: probes.family_probes(subject, twin),
        "steering": lambda: steering(folder),
        "tracking": lambda: knowledge.tracking(subject),
        "membership": lambda: knowledge.membership(subject, tree.read()),
        "samples": lambda: text.samples(subject),
    }
    figures: dict[str, Any] = {
        "measured": datetime.now(UTC).date().isoformat(),
        "weights_sha256": weights_digest(folder),
    }
    for name in only:
        started = time.monotonic()
        figures[name] = measures[name]()
        print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
    return figures


def write(figures: dict[str, Any], folder: Path) -> None:
    (folder / "eval.json").write_text(json.dumps(figures, indent=1) + "\n")
