import json
from pathlib import Path

import pytest

from ftw.hat.classifiers import PackInfo
from ftw.hat.monitoring import DeploymentManifest, presets, read_manifest
from ftw.substrate.errors import ConfigError, PackError, StorageError


def manifest(**values: object) -> DeploymentManifest:
    return DeploymentManifest.read({"manifest_id": "m", **values}, source="test")


def test_defaults_are_those_of_the_format() -> None:
    plain = manifest()
    assert (plain.layer_bounds.default_max_layer, plain.layer_bounds.always_load_layers) == (2, (0, 1))
    assert plain.layer_bounds.absolute_max_layer == "all"
    loading = plain.dynamic_loading
    assert (loading.enabled, loading.parent_threshold, loading.unload_threshold) == (True, 0.7, 0.1)
    assert (loading.cooldown_ticks, loading.max_loaded_concepts) == (100, 2000)


def test_toml_and_json_say_the_same(tmp_path: Path) -> None:
    values = {
        "manifest_id": "both",
        "branch_rules": [{"branch": "Animal", "max_layer": 3, "priority": "critical"}],
        "domain_overrides": {"Act": {"max_layer": "all", "priority": "low"}},
        "aperture": {"must_not_enable": [{"branches": ["Weapon/*"], "reason": "not here"}]},
    }
    (tmp_path / "m.json").write_text(json.dumps(values))
    (tmp_path / "m.toml").write_text(
        'manifest_id = "both"\n[[branch_rules]]\nbranch = "Animal"\nmax_layer = 3\npriority = "critical"\n'
        '[domain_overrides.Act]\nmax_layer = "all"\npriority = "low"\n'
        '[[aperture.must_not_enable]]\nbranches = ["Weapon/*"]\nreason = "not here"\n'
    )
    assert read_manifest(tmp_path / "m.toml") == read_manifest(tmp_path / "m.json")


@pytest.mark.parametrize("name", presets())
def test_a_preset_is_read_by_its_name(name: str) -> None:
    assert read_manifest(name).manifest_id == name


def test_the_presets_are_these() -> None:
    assert presets() == ("benchmark-v1", "general-chat", "minimal-efficient", "safety-auditor")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"layer_bound": {}}, "layer_bound"),
        ({"aperture": {"must_not_enable": [{"branches": ["A/B"]}]}}, "is no pattern"),
        ({"aperture": {"must_enable": [{"branches": []}]}}, "at least 1"),
        ({"explicit_concepts": {"always_include": ["**"]}}, "is no pattern"),
        ({"dynamic_loading": {"parent_threshold": 0.1, "unload_threshold": 0.2}}, "is above parent_threshold"),
        ({"concept_pack": {"pack_id": "p", "min_version": "one"}}, "is no version"),
        ({"branch_rules": [{"branch": "A", "priority": "urgent"}]}, "critical"),
        ({"layer_bounds": {"default_max_layer": -1}}, "greater than or equal to 0"),
        ({"concept_calibration": {"A": {"slope": -1}}}, "greater than 0"),
    ],
)
def test_what_is_wrong_is_named(values: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        manifest(**values)


def test_a_file_that_is_no_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one of the presets benchmark-v1"):
        read_manifest("safety-auditer")
    with pytest.raises(StorageError, match=r"gone.toml cannot be read"):
        read_manifest(tmp_path / "gone.toml")
    for name, text, told in (("a.toml", "= 3", "not valid TOML"), ("a.json", "{", "not valid JSON")):
        (tmp_path / name).write_text(text)
        with pytest.raises(ConfigError, match=told):
            read_manifest(tmp_path / name)
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(ConfigError, match="holds list"):
        read_manifest(tmp_path / "list.json")


def test_a_pack_outside_the_bounds_is_refused(info: PackInfo) -> None:
    for good in ({}, {"min_version": "1.0"}, {"max_version": "1.0.0"}, {"min_version": "0.9", "max_version": "1.10"}):
        manifest(concept_pack={"pack_id": "everyday", **good}).check_pack(info)
    with pytest.raises(PackError, match=r"is for concept pack first-light, lens pack tiny_everyday reads everyday"):
        manifest(concept_pack={"pack_id": "first-light"}).check_pack(info)
    for bad in ({"min_version": "1.0.1"}, {"max_version": "0.9"}):
        with pytest.raises(PackError, match=r"lens pack tiny_everyday reads 1\.0\.0"):
            manifest(concept_pack={"pack_id": "everyday", **bad}).check_pack(info)
    odd = info.model_copy(update={"concept_pack": info.concept_pack.model_copy(update={"version": "beta"})})
    manifest(concept_pack={"pack_id": "everyday"}).check_pack(odd)
    with pytest.raises(PackError, match="cannot be compared"):
        manifest(concept_pack={"pack_id": "everyday", "min_version": "1"}).check_pack(odd)
