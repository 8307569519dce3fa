import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def ran(script: str, **more: str) -> "subprocess.CompletedProcess[str]":
    root = HERE.parents[1]
    env = {**os.environ, "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}", **more}
    return subprocess.run([sys.executable, HERE / script], capture_output=True, text=True, timeout=120, env=env)


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed here")
def test_the_triton_kernel_gives_the_logits_of_the_plain_form() -> None:
    done = ran("tail_interpreted.py", TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stderr


@pytest.mark.triton
@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed here")
def test_the_triton_kernel_compiles_for_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    done = ran("tail_compiles.py", TRITON_CACHE_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
