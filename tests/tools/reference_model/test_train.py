import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tools.reference_model.decoder import Decoder, Shape, document_mask, rope_table
from tools.reference_model.packing import IGNORE, Windows
from tools.reference_model.train import Data, Marks, Outlet, Recipe, rows_of, save, targets_of, train

TINY = Shape(vocab=64, width=32, blocks=2, heads=2, kv_heads=1, hidden=48, context=160)
MARKS: Marks = {"bos": 0, "eos": 1, "pad": 2}


def decoder(seed: int = 0) -> Decoder:
    """Random weights everywhere; a fresh decoder has zeros where its blocks write."""
    torch.manual_seed(seed)
    model = Decoder(TINY)
    for p in model.parameters():
        if p.ndim == 2:
            torch.nn.init.normal_(p, std=0.2)
    return model.eval()


def run(model: Decoder, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.logits(model(ids, *rope_table(TINY, ids.shape[1]), document_mask(ids, MARKS["bos"])))


def windows(length: int, rows: int, seed: int) -> Windows:
    """Documents in which every token is the one before plus one: easy to learn."""
    rng = np.random.default_rng(seed)
    start = rng.integers(3, 30, rows)
    ids = (start[:, None] + np.arange(length)) % 60 + 3
    ids[:, 0] = MARKS["bos"]
    return Windows(ids.astype(np.uint16), MARKS["pad"])


@pytest.fixture
def data() -> Data:
    return Data(windows(32, 64, 0), windows(64, 8, 1), windows(64, 4, 2))


def test_attention_never_crosses_a_document() -> None:
    model = decoder()
    ids = torch.randint(3, 64, (1, 40))
    ids[0, 0] = ids[0, 20] = MARKS["bos"]
    other = ids.clone()
    other[0, 1:20] = torch.randint(3, 64, (19,))
    assert torch.equal(run(model, ids)[0, 20:], run(model, other)[0, 20:])
    assert not torch.allclose(run(model, ids)[0, 1:20], run(model, other)[0, 1:20])


def test_attention_never_sees_the_future() -> None:
    model = decoder()
    ids = torch.randint(3, 64, (1, 150))
    other = ids.clone()
    other[0, 140:] = 5
    assert torch.equal(run(model, ids)[0, :140], run(model, other)[0, :140])


def test_a_saved_model_gives_the_same_logits_in_transformers(tmp_path: Path) -> None:
    model = decoder()
    model.load_state_dict({k: v.bfloat16().float() for k, v in model.state_dict().items()})
    save(model, MARKS, tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    ids = torch.randint(3, 64, (2, 150))
    ids[:, 0] = MARKS["bos"]
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, run(model, ids), atol=1e-4, rtol=1e-4)
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == 0o644


def test_targets_stop_at_the_end_of_a_document() -> None:
    ids = torch.tensor([[0, 7, 8, 1, 0, 9, 1, 2]])
    assert targets_of(ids, MARKS).tolist() == [[7, 8, 1, IGNORE, 9, 1, IGNORE, IGNORE]]


def test_every_window_comes_once_per_pass() -> None:
    source = Windows(np.arange(10, dtype=np.uint16)[:, None], pad=99)
    feed = rows_of(source, 5, seed=0)
    assert sorted(np.concatenate([next(feed), next(feed)]).ravel().tolist()) == list(range(10))


def test_a_tiny_run_learns_and_repeats_itself(tmp_path: Path, data: Data) -> None:
    recipe = Recipe(steps=60, processes=1, batch_tokens=256, warmup=5)
    for name in ("one", "two"):
        train(TINY, recipe, data, MARKS, Outlet(tmp_path / name, compile=False, log_every=10))
    report = json.loads((tmp_path / "one" / "training.json").read_text())
    assert report["log"][-1]["loss"] < 0.5 * report["log"][0]["loss"]
    assert 0 < report["long_steps"] < report["recipe"]["steps"]
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert all(torch.equal(one[k], two[k]) for k in one)
