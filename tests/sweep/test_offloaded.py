"""A model whose blocks lie partly on the disk is swept like one in memory, bit for bit."""

from pathlib import Path

import numpy as np
import pytest

from ftw.substrate import offload
from ftw.substrate.config import ModelSpec, Settings
from ftw.substrate.model import load
from ftw.substrate.offload import DISK, Slot
from ftw.sweep.battery import Prompt
from ftw.sweep.lenses.views import VIEWS, view
from ftw.sweep.run import Sweep

PROMPTS = [
    Prompt("fr", "The capital of France is", "Paris", control_answer="Berlin"),
    Prompt("story", "Once upon a time", kind="probe"),
]


class Nothing:
    """An estimate of a pass that takes no memory."""

    total = weights = 0


@pytest.fixture
def half_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for about half of the reference model's blocks."""
    monkeypatch.setattr(offload, "here", lambda: (Slot("cpu", 16 << 20), Slot(DISK, None)))
    monkeypatch.setattr(offload, "estimate", lambda *_: Nothing())


@pytest.mark.usefixtures("half_on_disk")
def test_a_table_from_the_disk_is_the_table_of_a_model_in_memory_bit_for_bit(tmp_path: Path) -> None:
    whole = load("reference")
    spread = load(ModelSpec(name="reference", device="map"), settings=Settings(cache_dir=tmp_path))
    absent = [name for name, weight in spread.net.named_parameters() if weight.device.type == "meta"]
    assert absent, "nothing was left on the disk"
    assert {name.split(".")[2] for name in absent} < {str(layer) for layer in range(8)}, "some blocks are in memory"
    assert not any("norm" in name or "embed" in name or "head" in name for name in absent)
    assert spread.fingerprint == whole.fingerprint
    tables = [Sweep(m, [view(m, name) for name in VIEWS]).run(PROMPTS) for m in (whole, spread)]
    for name in tables[0].columns:
        np.testing.assert_array_equal(tables[0][name], tables[1][name], err_msg=name)
    assert not any((tmp_path / "offload").iterdir()), "weights were copied"
