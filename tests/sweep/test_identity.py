"""Identity: what decides numbers besides weights and prompts changes a digest, and nothing else does."""

import ast
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import ftw
from ftw.substrate.model import Model, from_net, load
from ftw.sweep.audits.provenance import capture
from ftw.sweep.files.cache import PassCache
from ftw.sweep.identity import CODE, attention, code_sha256, config_sha256
from ftw.sweep.run import Sweep
from tests.sweep.folders import reference_with

PACKAGE = Path(ftw.__file__).parent
DECIDE_NOTHING = {
    "sweep": {"battery", "files", "identity", "items"},  # what they give stands in the key of a pass, or is the cache
    "substrate": {
        "bundled",
        "canonical",
        "checkpoint",
        "config",
        "device",
        "errors",
        "fingerprint",
        "manifest",
        "types",
    },
}
"""Rooms and modules whose code makes no number out of token ids."""


@pytest.fixture(scope="module")
def model() -> Model:
    return load("reference")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The same weights with another norm epsilon."""
    return load(str(reference_with(tmp_path_factory.mktemp("models") / "other", rms_norm_eps=0.1)))


def test_passes_of_the_same_weights_with_another_config_are_not_taken_up(
    model: Model, other: Model, tmp_path: Path
) -> None:
    assert model.fingerprint == other.fingerprint
    one, two = Sweep(model), Sweep(other)
    one.run(["The capital of France is"], cache=PassCache(tmp_path, one.scope))
    cache = PassCache(tmp_path, two.scope)
    table = two.run(["The capital of France is"], cache=cache)
    assert (cache.hits, cache.misses) == (0, 1)
    assert table["logsumexp"].tobytes() == two.run(["The capital of France is"])["logsumexp"].tobytes()


def test_what_made_a_run_tells_the_configs_apart(model: Model, other: Model) -> None:
    a, b = capture(model)["model"], capture(other)["model"]
    assert a["config_sha256"] == config_sha256(model)
    assert {key for key in a if a[key] != b[key]} == {"name", "config_sha256"}


@pytest.mark.parametrize(
    "change",
    [{"dtype": "bfloat16"}, {"transformers_version": "5.0.0"}, {"_name_or_path": "x"}, {"vision": {"dtype": "x"}}],
)
def test_where_a_config_came_from_changes_nothing(model: Model, tmp_path: Path, change: dict[str, Any]) -> None:
    file = reference_with(tmp_path / "same", **change) / "config.json"
    told = json.loads(file.read_text())
    if "vision" in told:  # at every depth
        changed = config_of(model, told)
        assert changed == config_of(model, {**told, "vision": {"dtype": "y"}})
        assert changed != config_of(model, {**told, "vision": {"dtype": "y", "depth": 2}})
    else:
        assert config_of(model, told) == config_sha256(model)


def config_of(model: Model, config: dict[str, Any]) -> str:
    """The digest of a model with this config in its file."""
    assert model.checkpoint is not None
    stand_in = object.__new__(Model)
    checkpoint = type(model.checkpoint)(model.checkpoint.folder, config, model.checkpoint.files)
    stand_in.__dict__.update(model.__dict__ | {"checkpoint": checkpoint})
    return config_sha256(stand_in)


def test_a_model_in_memory_has_the_digest_of_its_config_there() -> None:
    one, two = load("tiny"), load("tiny")
    assert config_sha256(one) == config_sha256(two) == config_sha256(from_net(two.net, name="mine"))
    two.net.config.rms_norm_eps = 0.5
    assert config_sha256(one) != config_sha256(two)
    two.net.config.time_step_limit = (0.0, float("inf"))  # as configs of state-space models have it
    assert len(config_sha256(two)) == 64


def test_another_implementation_of_attention_is_another_scope() -> None:
    one, two = load("tiny"), load("tiny")
    two.net.set_attn_implementation("eager")
    assert (attention(one), attention(two)) == ("sdpa", "eager")
    assert {key for key, value in Sweep(one).scope.items() if value != Sweep(two).scope[key]} == {"attention"}
    assert capture(two)["model"]["attention"] == "eager"


def test_a_change_of_the_code_that_makes_numbers_is_another_scope(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pattern in CODE:
        for file in PACKAGE.glob(pattern):
            target = tmp_path / file.relative_to(PACKAGE)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    assert code_sha256(tmp_path) == code_sha256()
    (tmp_path / "sweep" / "job.py").write_text("# makes no number")
    assert code_sha256(tmp_path) == code_sha256()
    decode = tmp_path / "sweep" / "decode.py"
    decode.write_bytes(decode.read_bytes() + b"\n")
    changed = code_sha256(tmp_path)
    assert changed != code_sha256()
    before = Sweep(load("tiny")).scope
    assert before["code"] == capture(load("tiny"))["code"]["sha256"] == code_sha256()
    monkeypatch.setattr("ftw.sweep.run.code_sha256", lambda: changed)
    assert Sweep(load("tiny")).scope != before


@pytest.mark.parametrize("pattern", CODE)
def test_every_file_that_is_named_is_there(pattern: str) -> None:
    assert list(PACKAGE.glob(pattern))


def test_whatever_the_numeric_modules_import_is_in_the_digest_or_decides_nothing() -> None:
    files = {file for pattern in CODE for file in PACKAGE.glob(pattern)}
    names = {".".join(file.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__") for file in files}
    asked = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ftw."):
                module = str(node.module).removeprefix("ftw.")
                here = [f"{module}.{each.name}" for each in node.names]
                is_room = [(PACKAGE / Path(*each.split("."))).with_suffix(".py").exists() for each in here]
                asked |= {each if is_file else module for each, is_file in zip(here, is_room, strict=True)}
    free = {f"{room}.{name}" for room, some in DECIDE_NOTHING.items() for name in some}
    missing = {each for each in asked - names if ".".join(each.split(".")[:2]) not in free}
    assert not missing
