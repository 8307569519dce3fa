"""Settings and specs: what is unknown or bad stops the program, and says what would be good."""

from pathlib import Path

import pytest

from ftw.substrate.config import ModelSpec, PocSettings, Settings, parse_size
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
    assert Settings.from_env({"HOME": "/home/x"}).packs_dir == Path("/home/x/.local/share/ftw")
    assert Settings.from_env({"XDG_DATA_HOME": "/d"}).packs_dir == Path("/d/ftw")
    assert Settings.from_env({"XDG_CACHE_HOME": "/c", "FTW_CACHE_DIR": "/d"}).cache_dir == Path("/d")


def test_an_unknown_variable_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"FTW_MODLE is not a setting of ftw; did you mean FTW_MODEL\?"):
        Settings.from_env({"FTW_MODLE": "x"})


def test_a_bad_variable_is_an_error() -> None:
    with pytest.raises(ConfigError, match="environment: FTW_DTYPE: Input should be"):
        Settings.from_env({"FTW_DTYPE": "float99"})


@pytest.mark.parametrize(
    ("text", "size"), [("64MB", 64_000_000), (" 1.5 GiB ", 1_610_612_736), ("100", 100), ("64 mb", 64_000_000)]
)
def test_sizes_have_decimal_and_binary_units(text: str, size: int) -> None:
    assert parse_size(text) == Settings.from_env({"FTW_LENS_MEMORY": text}).lens_memory == size


@pytest.mark.parametrize("text", ["0", "-1MB", "lots", "64 MBB", "inf"])
def test_what_is_no_size_names_the_way_out(text: str) -> None:
    with pytest.raises(ConfigError, match=r"FTW_LENS_MEMORY: .* is no size: give bytes with a unit, such as 64MB"):
        Settings.from_env({"FTW_LENS_MEMORY": text})


def test_specs_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        ModelSpec(name="x").name = "y"  # type: ignore[misc]


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTW_MODEL", "tiny")
    assert Settings.from_env().model == "tiny"


# --- the proof service


def test_the_proof_service_has_the_networks_defaults() -> None:
    settings = PocSettings.from_env({"HOME": "/home/x"})
    assert (settings.callback_interval_sec, settings.generate_chunk_timeout_sec) == (5, 60)
    assert (settings.generate_result_ttl_sec, settings.rpc_timeout_ms) == (300, 60_000)
    assert (settings.batch_size_default, settings.max_queued_nonces, settings.nan_kill_threshold) == (32, 100_000, 3)
    assert (settings.profile, settings.seq_len, settings.priority) == ("artifact-k12", 256, "chat")
    assert settings.journal == Path("/home/x/.cache/ftw/poc.sqlite")
    assert settings.signing_key == Path("/home/x/.cache/ftw/poc.key.pem")


def test_every_variable_of_the_proof_service_is_read() -> None:
    values = {"POC_CALLBACK_ALLOW": "10.0.0.0/8", "POC_PROFILE": "distance-k64", "POC_PRIORITY": "proof"}
    values |= {"POC_JOURNAL": "/j/a.db", "POC_SIGNING_KEY": "/k/key.pem"}
    numbers = {f"POC_{name.upper()}": "7" for name in PocSettings.model_fields if f"POC_{name.upper()}" not in values}
    settings = PocSettings.from_env(values | numbers)
    for variable, value in (values | numbers).items():
        assert str(getattr(settings, variable.removeprefix("POC_").lower())).removesuffix(".0") == value


def test_a_signing_key_lies_beside_its_journal() -> None:
    assert PocSettings.from_env({"POC_JOURNAL": "/j/a.db"}).signing_key == Path("/j/a.key.pem")
    assert PocSettings.from_env({"FTW_CACHE_DIR": "/c"}).journal == Path("/c/poc.sqlite")


def test_an_unknown_variable_of_the_proof_service_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"POC_CALLBACK_INTERVAL is not a setting.*mean POC_CALLBACK_INTERVAL_SEC\?"):
        PocSettings.from_env({"POC_CALLBACK_INTERVAL": "5"})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("POC_CALLBACK_INTERVAL_SEC", "0"),
        ("POC_CALLBACK_INTERVAL_SEC", "nan"),
        ("POC_GENERATE_RESULT_TTL_SEC", "inf"),
        ("POC_RPC_TIMEOUT_MS", "0.5"),
        ("POC_MAX_QUEUED_NONCES", "0"),
        ("POC_NAN_KILL_THRESHOLD", "0"),
        ("POC_FORWARD_ROWS", "0"),
        ("POC_BATCH_SIZE_DEFAULT", "65537"),
        ("POC_PRIORITY", "both"),
        ("POC_STOP_DEADLINE_SEC", "-1"),
    ],
)
def test_a_value_of_the_proof_service_out_of_bounds_is_an_error(variable: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"{variable}: .*got '{value}'"):
        PocSettings.from_env({variable: value})
