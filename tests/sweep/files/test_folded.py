"""Folded documents: the same when unfolded, and a tenth of the size where there are many prompts."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ftw.sweep.files.folded import fold, unfold
from ftw.sweep.files.rundir import read_document, write_document

OUTCOMES = st.one_of(
    st.builds(lambda value: {"value": value, "why": None}, st.one_of(st.integers(), st.booleans(), st.text())),
    st.builds(lambda why: {"value": None, "why": why}, st.sampled_from(["never", "no_answer"])),
)
NAMES = st.sampled_from(["semantic", "copy", "rank_le_5"])
MILESTONES = st.dictionaries(st.sampled_from(["logit", "raw"]), st.dictionaries(NAMES, OUTCOMES, min_size=1))
DOCUMENTS = st.lists(MILESTONES, max_size=5).map(
    lambda all_: {
        "schema": 1,
        "prompts": [{"id": str(at), "milestones": each} for at, each in enumerate(all_)],
        "facts": {},
    }
)


@given(DOCUMENTS)
def test_unfolding_gives_back_what_was_folded(document: dict[str, Any]) -> None:
    again = unfold(json.loads(json.dumps(fold(document))))
    assert again == document


def test_a_document_without_prompts_stays_as_it_is() -> None:
    document = {"schema": 1, "status": "failed", "model": {"name": "m"}}
    assert fold(document) == document
    assert unfold(document) == document


def test_the_file_holds_columns_and_reading_gives_prompts(tmp_path: Any) -> None:
    found = {"logit": {f"milestone_{name}": {"value": 7, "why": None} for name in range(50)}}
    document = {
        "schema": 1,
        "status": "ok",
        "prompts": [{"id": str(at), "milestones": found} for at in range(200)],
    }
    file = write_document(tmp_path, document)
    stored = json.loads(file.read_text())
    assert stored["milestones"]["logit"]["milestone_3"]["value"] == [7] * 200
    assert "milestones" not in stored["prompts"][0]
    assert file.stat().st_size < len(json.dumps(document)) / 5
    assert read_document(tmp_path) == document
