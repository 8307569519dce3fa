"""Ray: shares go to workers as plain data, the end is done here, and what is missing is said with its pip line."""

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ftw.map.training.ray_runner import run_on_ray
from ftw.map.training.train import TrainConfig, train
from ftw.substrate.errors import ConfigError, MissingExtra
from ftw.substrate.model import load
from tests.map.training.test_train import CONFIG, concepts


class InProcess:
    """What the runner needs of Ray, without processes. What goes to a worker is pickled on the way."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def is_initialized(self) -> bool:
        return False

    def init(self, **options: Any) -> None:
        self.calls.append("init")

    def shutdown(self) -> None:
        self.calls.append("shutdown")

    def remote(self, **options: Any) -> Callable[[Callable[..., Any]], Any]:
        return lambda function: SimpleNamespace(remote=lambda share: (function, pickle.dumps(share)))

    def wait(self, waiting: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        return waiting[:num_returns], waiting[num_returns:]

    def get(self, ready: list[Any]) -> list[Any]:
        self.calls.append("task")
        return [function(pickle.loads(share)) for function, share in ready]


def test_workers_do_everything_but_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = InProcess()
    monkeypatch.setitem(sys.modules, "ray", ray)
    model, out, work = load("tiny"), tmp_path / "p", tmp_path / "p.training"
    told: list[tuple[str, int, int]] = []
    run_on_ray(
        model,
        concepts(),
        out,
        work=work,
        workers=2,
        seed=3,
        blocks=[1],
        config=CONFIG,
        progress=lambda *step: told.append(step),
    )
    assert ray.calls == ["init", "task", "task", "task", "task", "shutdown"]
    assert told[-1] == ("fitting lenses on Ray", 2, 2)
    stages: list[str] = []
    train(
        model,
        concepts(),
        out,
        seed=3,
        blocks=[1],
        config=CONFIG,
        work=work,
        directions=False,
        progress=lambda what, done, total: stages.append(what),
    )
    assert not [stage for stage in stages if stage.startswith("fitting block")]


def test_without_ray_the_pip_line_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"pip install 'ftw-transparency\[ray\]'"):
        run_on_ray(load("tiny"), concepts(), tmp_path / "p", work=tmp_path / "w", workers=1, config=TrainConfig())


def test_no_worker_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="0 workers: at least one is needed"):
        run_on_ray(load("tiny"), concepts(), tmp_path / "p", work=tmp_path / "w", workers=0)
