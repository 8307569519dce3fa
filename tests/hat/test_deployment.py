import tomllib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ftw.hat.classifiers import Calibration, LensRow, PackInfo
from ftw.hat.classifiers.index import read_index, read_info
from ftw.hat.monitoring import Deployment, DeploymentManifest, Scope, comparable, fingerprint, read_manifest
from ftw.substrate.errors import ConfigError, PackError, UnknownConcept

TREE = {
    "Life": None,
    "Mind": None,
    "Animal": "Life",
    "Plant": "Life",
    "Feeling": "Mind",
    "Dog": "Animal",
    "Cat": "Animal",
    "Tree": "Plant",
    "Fear": "Feeling",
    "Joy": "Feeling",
    "Puppy": "Dog",
    "Hound": "Dog",
    "Panic": "Fear",
    "Beagle": "Hound",
}
ROWS = [LensRow(term=term, block=0, row=at, parent=parent) for at, (term, parent) in enumerate(TREE.items())]


def deploy(domains: Mapping[str, str] | None = None, info: PackInfo | None = None, **values: object) -> Deployment:
    manifest = DeploymentManifest.read({"manifest_id": "m", **values}, source="test")
    return Deployment(manifest, ROWS, domains=domains, info=info)


def loaded(deployment: Deployment) -> set[str]:
    return {deployment.rows[at].term for at in deployment.loaded}


BARE = {"layer_bounds": {"default_max_layer": 0, "always_load_layers": []}}


def test_by_default_levels_0_to_2_are_read() -> None:
    assert loaded(deploy()) == {term for term in TREE if term not in ("Puppy", "Hound", "Panic", "Beagle")}


def test_the_deepest_level_is_the_packs_own() -> None:
    whole = deploy(layer_bounds={"default_max_layer": "all"})
    assert loaded(whole) == set(TREE)
    assert loaded(Deployment(read_manifest("safety-auditor"), ROWS)) == set(TREE)


RULES: dict[str, dict[str, object]] = {
    "explicit exclude": {"explicit_concepts": {"always_exclude": ["Dog"]}},
    "explicit include": {"explicit_concepts": {"always_include": ["Dog"]}},
    "absolute max": {"layer_bounds": {"absolute_max_layer": 1, "default_max_layer": 0, "always_load_layers": []}},
    "always load": {"layer_bounds": {"default_max_layer": 0, "always_load_layers": [2]}},
    "branch rule": {"branch_rules": [{"branch": "Animal", "max_layer": 2}]},
    "domain override": {"domain_overrides": {"Life": {"max_layer": 0}}},
    "default max": {},
}
LOADS = {"explicit include", "always load", "branch rule"}


def merged(*parts: Mapping[str, object]) -> dict[str, object]:
    out: dict[str, object] = dict(BARE)
    for part in parts:
        for key, value in part.items():
            if isinstance(value, dict):
                before = out.get(key, {})
                assert isinstance(before, dict)
                out[key] = {**before, **value}
            else:
                out[key] = value
    return out


@pytest.mark.parametrize("at", range(len(RULES) - 1))
def test_an_earlier_rule_wins_over_every_later_one(at: int) -> None:
    """Each rule with one that would say the opposite further down."""
    name = list(RULES)[at]
    assert deploy(**merged(*reversed([RULES[rule] for rule in list(RULES)[at:]]))).why("Dog").rule == name
    alone = deploy(**merged(RULES[name])).why("dog")
    assert (alone.rule, alone.loads) == (name, name in LOADS)


def test_the_aperture_stands_with_the_explicit_rules() -> None:
    must = deploy(**BARE, aperture={"must_enable": [{"branches": ["Fear"]}]})
    assert (must.why("Panic").rule, must.why("Fear").rule) == ("must enable", "must enable")
    assert must.why("Joy").rule == "siblings"
    assert loaded(must) == {"Life", "Mind", "Fear", "Panic", "Joy"}
    never = deploy(aperture={"must_not_enable": [{"branches": ["Animal/*"]}]})
    assert loaded(never) == {"Life", "Mind", "Animal", "Plant", "Feeling", "Tree", "Fear", "Joy"}
    assert never.why("Dog").rule == "must not enable"
    nothing = deploy(aperture={"must_not_enable": [{"branches": ["*"]}]})
    assert loaded(nothing) == set()


def test_an_include_brings_its_siblings_but_not_what_is_excluded() -> None:
    with_all = deploy(**BARE, explicit_concepts={"always_include": ["Puppy"]})
    assert loaded(with_all) == {"Life", "Mind", "Puppy", "Hound"}
    without = deploy(**BARE, explicit_concepts={"always_include": ["Puppy"], "always_exclude": ["Hound"]})
    assert loaded(without) == {"Life", "Mind", "Puppy"}
    assert without.why("Hound").rule == "explicit exclude"


def test_the_first_branch_rule_that_matches_wins() -> None:
    rules = [{"branch": "Dog/*", "max_layer": 4}, {"branch": "Animal", "max_layer": 2}, {"branch": "*", "max_layer": 0}]
    found = deploy(layer_bounds={"default_max_layer": 1, "always_load_layers": []}, branch_rules=rules)
    assert loaded(found) == {"Life", "Mind", "Dog", "Cat", "Puppy", "Hound", "Beagle", "Animal", "Plant"}
    assert found.why("Plant").rule == "siblings"
    assert found.why("Tree").loads is False


def test_a_domain_override_acts_by_root_or_by_the_domains_given() -> None:
    bounds = {"default_max_layer": 1, "always_load_layers": [0]}
    by_root = deploy(layer_bounds=bounds, domain_overrides={"mind": {"max_layer": "all"}})
    assert loaded(by_root) == {"Life", "Mind", "Animal", "Plant", "Feeling", "Fear", "Joy", "Panic"}
    assert by_root.why("Panic").rule == "domain override"
    given = deploy({"Dog": "Pets", "Cat": "Pets"}, layer_bounds=bounds, domain_overrides={"Pets": {"max_layer": 2}})
    assert loaded(given) == {"Life", "Mind", "Animal", "Plant", "Feeling", "Dog", "Cat"}


def test_priority_decides_what_is_kept() -> None:
    values = {
        "layer_bounds": {"default_max_layer": "all", "always_load_layers": [0]},
        "branch_rules": [{"branch": "Mind", "priority": "critical"}],
        "domain_overrides": {"Life": {"priority": "low"}},
        "dynamic_loading": {"max_loaded_concepts": 6},
    }
    found = deploy(**values)
    assert loaded(found) == {"Mind", "Feeling", "Fear", "Joy", "Panic", "Life"}
    assert found.why("Animal").rule == "budget"
    plain = deploy(dynamic_loading={"max_loaded_concepts": 6})
    assert loaded(plain) == {"Life", "Mind", "Animal", "Plant", "Feeling"}


def test_what_is_demanded_is_never_cut() -> None:
    demand = {"must_enable": [{"branches": ["Dog"]}]}
    found = deploy(aperture=demand, dynamic_loading={"max_loaded_concepts": 6})
    assert loaded(found) == {"Dog", "Cat", "Puppy", "Hound", "Beagle", "Life"}
    with pytest.raises(ConfigError, match="demands 5 concepts with their siblings, max_loaded_concepts is 4"):
        deploy(aperture=demand, dynamic_loading={"max_loaded_concepts": 4})


def test_a_calibration_of_the_manifest_takes_the_lenss_place() -> None:
    found = deploy(concept_calibration={"dog": {"slope": 2, "offset": 1}})
    assert found.rows[found.place("Dog")].calibration == Calibration(slope=2, offset=1)
    assert found.rows[found.place("Cat")].calibration == Calibration()


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (
            {"aperture": {"must_enable": [{"branches": ["Dog"]}], "must_not_enable": [{"branches": ["*"]}]}},
            "Dog is in must_enable and in must_not_enable",
        ),
        (
            {"explicit_concepts": {"always_exclude": ["Cat"]}, "aperture": {"must_enable": [{"branches": ["Animal"]}]}},
            "Cat is in must_enable and in always_exclude",
        ),
        ({"domain_overrides": {"Pets": {}}}, "no concept of this pack lies there; domains are life, mind"),
    ],
)
def test_what_cannot_be_true_is_refused(values: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        deploy(**values)


def test_a_concept_that_is_not_there_is_refused() -> None:
    for values in (
        {"explicit_concepts": {"always_exclude": ["Dgo"]}},
        {"aperture": {"must_not_enable": [{"branches": ["Dgo/*"]}]}},
        {"branch_rules": [{"branch": "Dgo"}]},
        {"concept_calibration": {"Dgo": {}}},
    ):
        with pytest.raises(UnknownConcept, match="no lens for 'Dgo' in this pack; near it are Dog"):
            deploy(**values)


def test_the_fingerprint_is_of_what_is_loaded(info: PackInfo) -> None:
    one, other = deploy(), deploy(layer_bounds={"always_load_layers": [0, 1, 2]})
    assert one.record().fingerprint == other.record().fingerprint == fingerprint(reversed(one.record().concepts))
    assert deploy(**BARE).record().fingerprint != one.record().fingerprint
    deploy(comparability={"fingerprint": one.record().fingerprint})
    with pytest.raises(PackError, match="this one loads 2 concepts"):
        deploy(**BARE, comparability={"fingerprint": one.record().fingerprint})
    with pytest.raises(PackError, match="is for concept pack other"):
        deploy(info=info, concept_pack={"pack_id": "other"})


def test_readings_are_compared_only_where_both_read_the_same(info: PackInfo) -> None:
    one = deploy(info=info).record()
    whole = deploy(info=info, layer_bounds={"default_max_layer": "all"}).record()
    less = deploy(info=info, explicit_concepts={"always_exclude": ["Cat"]}).record()
    same = comparable(one, whole)
    assert (same.levels, len(same.concepts)) == ((0, 1, 2), 10)
    assert same.refused == ("level 3: 0 concepts only in m, 3 only in m", "level 4: 0 concepts only in m, 1 only in m")
    part = comparable(one, less)
    assert (part.levels, part.concepts) == ((0, 1), ("Animal:1", "Feeling:1", "Life:0", "Mind:0", "Plant:1"))
    assert comparable(less, one).levels == part.levels
    bound = deploy(info=info, comparability={"comparison_layers": [1]}).record()
    assert comparable(one, bound).levels == (1,)
    newer = deploy(info=info.model_copy(update={"version": "1.0.1"})).record()
    refused = comparable(one, newer)
    assert refused.concepts == ()
    assert refused.refused == ("m reads with tiny_everyday 1.0.0, m with tiny_everyday 1.0.1",)
    choosy = deploy(info=info, manifest_id="choosy", comparability={"comparable_with": ["other"]}).record()
    assert comparable(choosy, one).refused == comparable(one, choosy).refused == ("choosy compares only with other",)


def places(deployment: Deployment, *terms: str) -> list[int]:
    return [deployment.place(term) for term in terms]


def allowed(scope: Scope, p: Mapping[str, float]) -> set[str]:
    rows = scope.deployment.rows
    shown = scope.allowed(torch.tensor([[p.get(row.term, 0.0) for row in rows]]))[0].tolist()
    return {row.term for row, is_shown in zip(rows, shown, strict=True) if is_shown}


def test_a_strong_parent_opens_its_children_at_the_same_state() -> None:
    scope = Scope(deploy())
    start = loaded(scope.deployment)
    assert allowed(scope, {}) == start
    assert allowed(scope, {"Dog": 0.7}) == start | {"Puppy", "Hound"}
    assert allowed(scope, {"Dog": 0.69}) == start
    assert allowed(scope, {"Dog": 0.9, "Hound": 0.9}) == start | {"Puppy", "Hound", "Beagle"}
    assert allowed(scope, {"Hound": 0.9}) == start  # what is closed opens nothing
    assert scope.open == scope.deployment.loaded


def test_what_may_not_open_does_not_open_by_itself() -> None:
    still = Scope(deploy(dynamic_loading={"enabled": False}))
    assert allowed(still, {"Dog": 1}) == loaded(still.deployment)
    bounded = Scope(deploy(layer_bounds={"absolute_max_layer": 3}))
    assert allowed(bounded, {"Dog": 1, "Hound": 1}) - loaded(bounded.deployment) == {"Puppy", "Hound"}
    aperture = {"may_enable": [{"branches": ["Mind"]}]}
    narrow = Scope(deploy(aperture=aperture))
    assert allowed(narrow, {"Dog": 1, "Fear": 1}) - loaded(narrow.deployment) == {"Panic"}
    one = Scope(deploy(aperture={"may_enable": [{"branches": ["Puppy"]}]}))
    assert allowed(one, {"Dog": 1, "Hound": 1}) - loaded(one.deployment) == {"Puppy", "Hound"}  # siblings, whole
    never = Scope(deploy(explicit_concepts={"always_exclude": ["Hound"]}))
    assert allowed(never, {"Dog": 1, "Hound": 1}) - loaded(never.deployment) == {"Puppy"}


def test_a_scope_is_opened_and_closed_in_place() -> None:
    scope = Scope(deploy())
    scope.add(places(scope.deployment, "Panic"))
    assert allowed(scope, {}) == loaded(scope.deployment) | {"Panic"}
    scope.remove(places(scope.deployment, "Panic", "Fear", "Joy"))
    assert allowed(scope, {"Feeling": 1, "Fear": 1}) == loaded(scope.deployment) - {"Fear", "Joy"}
    static = Scope(deploy(dynamic_loading={"enabled": False}))
    mask = static.allowed(torch.zeros(1, len(ROWS)))
    static.add(places(static.deployment, "Beagle"))
    assert bool(mask[0, static.deployment.place("Beagle")])  # the same memory, as a captured graph needs it


@given(st.sets(st.sampled_from(sorted(TREE))), st.sets(st.sampled_from(sorted(TREE))), st.integers(0, 4))
def test_siblings_are_read_together_and_exclusions_hold(include: set[str], exclude: set[str], bound: int) -> None:
    found = deploy(
        layer_bounds={"default_max_layer": bound, "always_load_layers": []},
        explicit_concepts={"always_include": sorted(include), "always_exclude": sorted(exclude)},
    )
    now = loaded(found)
    assert not now & exclude
    assert include - exclude <= now
    for term in now:
        parent = TREE[term]
        if parent is not None:
            assert {other for other, above in TREE.items() if above == parent} - exclude <= now


def test_the_whole_manifest_of_the_page_is_one_for_the_bundled_pack() -> None:
    page = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text(encoding="utf-8")
    block = page.split("```toml\n")[1].split("```")[0]
    pack = Path(str(files("ftw"))) / "bundled" / "lens-packs" / "reference_everyday"
    manifest = DeploymentManifest.read(tomllib.loads(block), source="docs/monitoring.md")
    found = Deployment(manifest, read_index(pack), info=read_info(pack))
    assert found.why("Weapon").rule == "explicit exclude"
    assert 0 < len(found.loaded) < len(found.rows)
    assert set(tomllib.loads(block)) == set(DeploymentManifest.model_fields)
