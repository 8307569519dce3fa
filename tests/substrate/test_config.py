"""Settings and specs: what is unknown or bad stops the program, and says what would be good."""

from pathlib import Path

import pytest

from ftw.substrate.config import ModelSpec, Settings
from ftw.substrate.errors import ConfigError


def test_a_name_is_a_spec_with_every_default() -> None:
    spec = ModelSpec.of("reference")
    assert spec == ModelSpec(name="reference", revision=None, dtype="auto", device="auto", trust_remote_code=False)
    assert ModelSpec.of(spec) is spec


def test_an_unknown_key_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"model: devise is not a known key; did you mean device\?"):
        ModelSpec.read({"name": "x", "devise": "cpu"}, source="model")


def test_an_unknown_key_like_no_other_lists_them_all() -> None:
    with pytest.raises(ConfigError, match="zzz is not a known key; known are device, dtype, name"):
        ModelSpec.read({"name": "x", "zzz": 1}, source="model")


def test_a_bad_value_is_shown_with_what_would_be_good() -> None:
    with pytest.raises(ConfigError, match=r"dtype: Input should be 'auto', 'float32'.*got 'int3'"):
        ModelSpec.read({"name": "x", "dtype": "int3"}, source="model")


def test_an_empty_model_name_is_an_error() -> None:
    with pytest.raises(ConfigError, match="name: String should have at least 1 character"):
        ModelSpec.of("")


def test_settings_come_from_the_environment() -> None:
    settings = Settings.from_env({"FTW_MODEL": "org/name", "FTW_DTYPE": "bfloat16", "HOME": "/home/x", "OTHER": "1"})
    assert settings.model == "org/name"
    assert settings.cache_dir == Path("/home/x/.cache/ftw")
    assert settings.spec() == ModelSpec(name="org/name", dtype="bfloat16")
    assert settings.spec("tiny").name == "tiny"


def test_an_empty_variable_counts_as_unset() -> None:
    assert Settings.from_env({"FTW_MODEL": ""}).model == "reference"


def test_the_cache_follows_xdg_and_its_own_variable() -> None:
    assert Settings.from_env({"XDG_CACHE_HOME": "/c"}).cache_dir == Path("/c/ftw")
    assert Settings.from_env({"XDG_CACHE_HOME": "/c", "FTW_CACHE_DIR": "/d"}).cache_dir == Path("/d")


def test_an_unknown_variable_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"FTW_MODLE is not a setting of ftw; did you mean FTW_MODEL\?"):
        Settings.from_env({"FTW_MODLE": "x"})


def test_a_bad_variable_is_an_error() -> None:
    with pytest.raises(ConfigError, match="environment: dtype: Input should be"):
        Settings.from_env({"FTW_DTYPE": "float99"})


def test_specs_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        ModelSpec(name="x").name = "y"  # type: ignore[misc]


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTW_MODEL", "tiny")
    assert Settings.from_env().model == "tiny"
