"""The wheel: what a user installs holds the data it needs, stays small, and works outside the repository."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MIB = 2**20


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (built,) = out.glob("ftw_transparency-*.whl")
    return built


def test_the_wheel_holds_model_packs_and_licences(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for needed in (
        "ftw/bundled/reference-model/model.safetensors",
        "ftw/bundled/reference-model/WORDNET-LICENSE",
        "ftw/bundled/concept-packs/everyday/pack.json",
        "ftw/bundled/lens-packs/reference_everyday/level0.safetensors",
        *(f"ftw/ui/visualization/{name}" for name in ("page.css", "page.js", "draw.js", "words.js")),
        "ftw/ui/visualization/vendor/d3.min.js",
        "ftw/ui/visualization/vendor/plot.umd.min.js",
        "ftw/ui/visualization/vendor/versions.json",
        "ftw/ui/visualization/vendor/LICENSES.txt",
        "ftw/py.typed",
    ):
        assert needed in names
    assert any(name.endswith("LICENSE") and "dist-info" in name for name in names)


def test_the_wheel_is_at_most_40_mb(wheel: Path) -> None:
    assert wheel.stat().st_size <= 40 * MIB


def test_the_wheel_works_outside_the_repository(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run(install, check=True, capture_output=True, text=True)
    code = (
        "import ftw, pathlib; from ftw.substrate.model import load; m = load('reference');"
        "print(pathlib.Path(ftw.__file__).parent.parent, m.n_layers)"
    )
    run = [sys.executable, "-c", code]
    environment = {"PYTHONPATH": str(target), "HF_HUB_OFFLINE": "1", "HOME": str(tmp_path)}
    result = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.split() == [str(target), "8"]


@pytest.mark.slow
def test_pip_install_into_an_empty_environment_gives_a_working_command(wheel: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv/bin/python"
    constraints = ["--constraint", str(ROOT / "constraints.txt")]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *constraints, "torch==2.13.0"], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", *constraints, str(wheel)], check=True)
    probe = "import sys, ftw; sys.exit('torch' in sys.modules)"
    assert subprocess.run([python, "-c", probe], cwd=tmp_path).returncode == 0
    command = [tmp_path / "venv/bin/ftw", "peek", "The capital of France is", "--json"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "Paris" in result.stdout
