import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ftw.hat.classifiers import (
    MLP,
    ConceptPackId,
    LensRow,
    LensTensors,
    LinearProbe,
    ModelId,
    PackInfo,
    SimplexRow,
    TripoleLens,
    export_legacy,
    import_legacy,
    load_pack,
    load_simplexes,
    normalise,
    save_classifier,
    save_pack,
    save_simplexes,
)
from ftw.hat.classifiers.legacy_pack import read_legacy
from ftw.substrate.errors import PackError, StorageError, UsageError

D = 32
MODEL = ModelId(name="tiny", fingerprint="ab" * 32, d_model=D, n_layers=9)
Home = Callable[..., Path]


@pytest.fixture
def legacy(tmp_path: Path) -> Home:
    """Writes a legacy pack: lenses by their path in the folder, JSON files by name."""

    def make(lenses: dict[str, torch.nn.Module], **about: Any) -> Path:
        folder = tmp_path / "old-pack"
        for name, lens in lenses.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            save_classifier(lens, folder / name)  # type: ignore[arg-type]
        for name, value in about.items():
            file = folder / f"{name.replace('__', '/')}.json"
            file.write_text(json.dumps(value))
        return folder

    return make


def lens(seed: int = 0) -> MLP:
    torch.manual_seed(seed)
    return MLP(D)


def entry(block: int, category: str, file: str, f1: float = 0.9) -> dict[str, Any]:
    return {"layer": block, "category": category, "technique": "mlp", "metrics": {"test_f1": f1}, "file": file}


@pytest.mark.parametrize(
    "name",
    ["layer1/Food.pt", "layer1/Food_classifier.pt", "layer1/classifiers/Food.pt", "activation_lenses/layer1/Food.pt"],
)
def test_a_lens_is_found_wherever_published_packs_put_it(legacy: Home, tmp_path: Path, name: str) -> None:
    made = lens()
    done = import_legacy(legacy({name: made}), tmp_path / "new", model=MODEL, block=4)
    assert (done.lenses, done.blocks, done.storage) == (1, (4,), "float32")
    files = load_pack(tmp_path / "new")
    assert [(row.term, row.block, row.level) for row in files.rows] == [("Food", 4, 1)]
    assert torch.equal(files.blocks[4].w1[0], made.first.weight)


def test_bf16_lenses_stay_bf16_and_mixed_ones_are_kept_in_fp32(legacy: Home, tmp_path: Path) -> None:
    half = {f"layer0/{name}.pt": lens(at).to(torch.bfloat16) for at, name in enumerate("AB")}
    assert import_legacy(legacy(half), tmp_path / "a", model=MODEL, block=4).storage == "bfloat16"
    assert load_pack(tmp_path / "a").blocks[4].w1.dtype == torch.bfloat16
    done = import_legacy(legacy({"layer0/C.pt": lens()}), tmp_path / "b", model=MODEL, block=4)
    assert done.storage == "float32"
    assert "lenses of several dtypes: kept in fp32" in done.notes
    assert torch.equal(load_pack(tmp_path / "b").blocks[4].w1[0], half["layer0/A.pt"].first.weight.float())


def test_a_manifest_gives_a_lens_per_block_and_the_default_one(legacy: Home, tmp_path: Path) -> None:
    folder = legacy(
        {"a/Food.pt": lens(1), "b/Food.pt": lens(2), "c/Food.pt": lens(3)},
        version_manifest={
            "lens_pack_id": "tiny_everyday",
            "current_version": "20250101.1",
            "lenses": {
                "Food": {
                    "concept": "Food",
                    "layer": 2,
                    "trained_timestamp": "2025-01-01T00:00:00",
                    "classifiers": {
                        "1": entry(1, "early", "a/Food.pt", 0.99),
                        "4": entry(4, "mid", "b/Food.pt", 0.8),
                        "5": entry(5, "mid", "c/Food.pt", 0.9),
                    },
                }
            },
        },
    )
    import_legacy(folder, tmp_path / "new", model=MODEL)
    files = load_pack(tmp_path / "new")
    assert [(row.block, row.primary, row.level) for row in files.rows] == [(1, False, 2), (4, False, 2), (5, True, 2)]
    assert (files.info.name, files.info.version) == ("tiny_everyday", "20250101.1")
    assert files.rows[0].trained == "2025-01-01T00:00:00"
    assert files.rows[0].metrics["test_f1"] == 0.99


def test_a_manifest_without_classifiers_is_read_as_folders(legacy: Home, tmp_path: Path) -> None:
    folder = legacy({"layer0/Food.pt": lens()}, version_manifest={"lenses": {"Food": {"concept": "Food"}}})
    assert import_legacy(folder, tmp_path / "new", model=MODEL, block=4).lenses == 1


@pytest.mark.parametrize(
    "results",
    [
        {"results": [{"concept": "Food", "layer": 0, "test_f1": 0.9, "selected_layers": [4]}]},
        {"Food": {"test_f1": 0.9, "selected_layers": [4]}},
    ],
)
def test_both_forms_of_results_are_read(legacy: Home, tmp_path: Path, results: dict[str, Any]) -> None:
    folder = legacy({"layer0/Food.pt": lens()}, layer0__results=results)
    import_legacy(folder, tmp_path / "new", model=MODEL)
    row = load_pack(tmp_path / "new").rows[0]
    assert (row.block, row.metrics) == (4, {"test_f1": 0.9})


def test_precision_and_recall_that_were_not_recorded_are_left_out(legacy: Home) -> None:
    hollow = {"concept": "Food", "test_f1": 0.9, "test_precision": 0, "test_recall": 0}
    found = read_legacy(legacy({"layer0/Food.pt": lens()}, layer0__results={"results": [hollow]}))
    assert found.lenses[0].metrics == {"test_f1": 0.9}
    assert any("precision and recall of 1 lenses" in note for note in found.notes)


def test_calibration_is_kept_as_figures_and_not_made_a_probability(legacy: Home, tmp_path: Path) -> None:
    folder = legacy(
        {"layer2/Food.pt": lens()},
        calibration={
            "model_layer": 3,
            "calibration": {"Food_L2": {"self_mean": 0.8, "cross_mean": 0.7, "gen_fire_rate": 0.02, "n_self": 5}},
        },
    )
    done = import_legacy(folder, tmp_path / "new", model=MODEL)
    row = load_pack(tmp_path / "new").rows[0]
    assert row.block == 3
    assert row.metrics == {"self_mean": 0.8, "cross_mean": 0.7, "gen_fire_rate": 0.02, "n_self": 5.0}
    assert (row.calibration.slope, row.calibration.offset, row.threshold_logit) == (1, 0, 0)
    assert any("1 lenses are not calibrated" in note for note in done.notes)


def test_the_pack_s_papers_are_carried_over(legacy: Home, tmp_path: Path) -> None:
    folder = legacy(
        {"layer0/Food.pt": lens()},
        pack_info={
            "source_pack": "first-light",
            "pack_version": "1.0.1",
            "model": "gemma",
            "training_config": {"n_train_pos": 20, "threshold": float("nan")},
        },
    )
    import_legacy(folder, tmp_path / "new", model=MODEL, block=4)
    info = load_pack(tmp_path / "new").info
    assert info.concept_pack == ConceptPackId(name="first-light", version="1.0.1")
    assert info.training == {"n_train_pos": 20, "threshold": None}
    assert info.provenance["legacy_model"] == "gemma"


def test_parents_and_levels_come_from_the_concept_pack(legacy: Home, tmp_path: Path) -> None:
    folder = legacy({"layer1/Food.pt": lens(1), "layer0/Thing.pt": lens(2), "layer5/Odd.pt": lens(3)})
    tree = {"Thing": (0, None), "Food": (1, "Thing")}
    done = import_legacy(folder, tmp_path / "new", model=MODEL, tree=tree, block=4)
    rows = {row.term: row for row in load_pack(tmp_path / "new").rows}
    assert (rows["Food"].level, rows["Food"].parent, rows["Odd"].level) == (1, "Thing", 5)
    assert any("1 lenses are of no concept of the pack, Odd among them" in note for note in done.notes)


def test_a_term_at_two_levels_gets_two_names(legacy: Home, tmp_path: Path) -> None:
    folder = legacy({"layer1/Food.pt": lens(1), "layer3/Food.pt": lens(2)})
    done = import_legacy(folder, tmp_path / "new", model=MODEL, block=4)
    assert [row.term for row in load_pack(tmp_path / "new").rows] == ["Food", "Food_L3"]
    assert any("Food stands at two levels" in note for note in done.notes)


def test_a_refined_lens_takes_the_place_of_the_first(legacy: Home, tmp_path: Path) -> None:
    later = lens(2)
    done = import_legacy(
        legacy({"layer0/Food.pt": lens(1), "layer0/Food_refined.pt": later}), tmp_path / "new", model=MODEL, block=4
    )
    assert done.lenses == 1
    assert torch.equal(load_pack(tmp_path / "new").blocks[4].w1[0], later.first.weight)


def test_a_probe_becomes_a_lens_with_its_logits(legacy: Home, tmp_path: Path) -> None:
    probe = LinearProbe(D)
    done = import_legacy(legacy({"layer0/Food.pt": probe}), tmp_path / "new", model=MODEL, block=4)
    assert any("1 linear probes" in note for note in done.notes)
    x = normalise(torch.randn(8, D))
    part = load_pack(tmp_path / "new").blocks[4]
    assert part.w3.shape == (1, 2)
    assert torch.allclose(part.module()(x), probe(x), atol=1e-6)


def test_simplexes_are_imported_with_the_poles_that_are_known(legacy: Home, tmp_path: Path) -> None:
    mood = TripoleLens(D)
    folder = legacy({"layer0/Food.pt": lens(), "simplexes/mood.pt": mood})
    assert import_legacy(folder, tmp_path / "new", model=MODEL, block=4).simplexes == 1
    bank = load_simplexes(tmp_path / "new")
    assert bank is not None
    assert bank.rows[0].poles == ("negative", "neutral", "positive")
    assert torch.equal(bank.weight[0], mood.linear.weight)


@pytest.fixture
def pack(tmp_path: Path, info: PackInfo, rows: tuple[LensRow, ...], blocks: dict[int, LensTensors]) -> Path:
    """A pack with two levels, a concept with two lenses, and a simplex."""
    parents = {"B2R6": "B1R0", "B2R5": "B1R0"}
    kept = [
        row.model_copy(
            update={
                "level": 1 if row.term in parents else 0,
                "parent": parents.get(row.term),
                "metrics": {"gen_fire_rate": 0.1},
                **({"term": "B1R1", "primary": False} if row.term == "B2R4" else {}),
            }
        )
        for row in rows
    ]
    save_pack(tmp_path / "pack", info, kept, blocks, storage="float32")
    mood = SimplexRow(name="mood", block=2, row=0, poles=("sad", "even", "glad"), temperature=1.5)
    save_simplexes(tmp_path / "pack", [mood], torch.randn(1, 3, D), torch.randn(1, 3))
    return tmp_path / "pack"


def test_an_exported_pack_comes_back_as_it_was(pack: Path, tmp_path: Path, info: PackInfo) -> None:
    steps: list[tuple[int, int]] = []
    export_legacy(pack, tmp_path / "old", progress=lambda what, done, total: steps.append((done, total)))
    assert steps[-1] == (12, 12)
    done = import_legacy(tmp_path / "old", tmp_path / "back", model=info.model)
    assert (done.lenses, done.simplexes) == (12, 1)
    before, after = load_pack(pack), load_pack(tmp_path / "back")
    # screens do not travel, and they are part of a lens's bytes
    plain = [[row.model_copy(update={"sha256": None}) for row in files.rows] for files in (before, after)]
    assert plain[0] == plain[1]
    for block in before.blocks:
        for name in ("w1", "b1", "w2", "b2", "w3", "b3"):
            assert torch.equal(getattr(before.blocks[block], name), getattr(after.blocks[block], name))
    one, two = load_simplexes(pack), load_simplexes(tmp_path / "back")
    assert one is not None
    assert two is not None
    assert one.rows == two.rows
    assert torch.equal(one.weight, two.weight)


def test_an_exported_pack_reads_without_our_own_file(pack: Path, tmp_path: Path, info: PackInfo) -> None:
    export_legacy(pack, tmp_path / "old")
    (tmp_path / "old/ftw_index.json").unlink()
    import_legacy(tmp_path / "old", tmp_path / "back", model=info.model, block=1)
    rows = load_pack(tmp_path / "back").rows
    assert {(row.term, row.block, row.primary) for row in rows} == {
        (row.term, row.block, row.primary) for row in load_pack(pack).rows
    }
    assert rows[0].metrics == {"gen_fire_rate": 0.1}


def test_legacy_programs_find_the_primary_lenses_of_an_export(pack: Path, tmp_path: Path) -> None:
    export_legacy(pack, tmp_path / "old")
    assert {file.name for file in (tmp_path / "old/layer1").glob("*.pt")} == {"B2R5.pt", "B2R6.pt"}
    results = json.loads((tmp_path / "old/layer1/results.json").read_text())
    assert [item["concept"] for item in results["results"]] == ["B2R5", "B2R6"]
    calibration = json.loads((tmp_path / "old/calibration.json").read_text())
    assert calibration["calibration"]["B2R5_L1"] == {"gen_fire_rate": 0.1}
    manifest = json.loads((tmp_path / "old/version_manifest.json").read_text())
    assert sorted(manifest["lenses"]["B1R1"]["classifiers"]) == ["1", "2"]
    assert manifest["lenses"]["B1R1"]["default_layer"] == 1


def refused(folder: Path, tmp_path: Path, **more: Any) -> None:
    import_legacy(folder, tmp_path / "new", model=MODEL, **more)


def test_what_cannot_be_imported_says_why(legacy: Home, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="is not a folder"):
        refused(tmp_path / "nowhere", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(PackError, match="holds no lenses"):
        refused(tmp_path / "empty", tmp_path)
    folder = legacy({"layer0/Food.pt": lens()})
    with pytest.raises(UsageError, match=r"which block 1 of its 1 lenses read \(the first is 'Food'\): give it with"):
        refused(folder, tmp_path)
    wide = ModelId(name="wide", fingerprint="ab" * 32, d_model=64, n_layers=9)
    with pytest.raises(PackError, match=r"Food\.pt takes states of width 32, wide has 64"):
        import_legacy(folder, tmp_path / "a", model=wide, block=1)
    save_classifier(TripoleLens(D), folder / "layer0/Mood.pt")
    with pytest.raises(PackError, match=r"Mood\.pt is a simplex, not a lens of a concept"):
        import_legacy(folder, tmp_path / "b", model=MODEL, block=1)


def test_lenses_in_two_parts_are_refused_by_name(legacy: Home, tmp_path: Path) -> None:
    folder = legacy({"layer0/Food.pt": lens()})
    (folder / "layer0/Weather").mkdir()
    (folder / "layer0/Weather/activation_lens.pth").write_bytes(b"")
    with pytest.raises(PackError, match=r"holds 1 lenses in two parts \(Weather/.*512 units does not fit into 128"):
        refused(folder, tmp_path, block=1)


@pytest.mark.parametrize("name", ["../Food.pt", "/etc/Food.pt"])
def test_a_manifest_does_not_lead_out_of_its_folder(legacy: Home, tmp_path: Path, name: str) -> None:
    manifest = {"lenses": {"Food": {"layer": 0, "classifiers": {"4": entry(4, "mid", name)}}}}
    with pytest.raises(PackError, match="a pack's files lie inside its folder"):
        refused(legacy({"layer0/Food.pt": lens()}, version_manifest=manifest), tmp_path)


def test_papers_that_are_broken_are_named(legacy: Home, tmp_path: Path) -> None:
    folder = legacy({"layer0/Food.pt": lens()}, pack_info=[1])
    with pytest.raises(PackError, match=r"pack_info\.json is list, not an object"):
        refused(folder, tmp_path, block=1)
    (folder / "pack_info.json").write_text("{")
    with pytest.raises(PackError, match=r"pack_info\.json is not valid JSON"):
        refused(folder, tmp_path, block=1)
    with pytest.raises(PackError, match=r"lenses is list, not an object by concept"):
        refused(legacy({}, pack_info={}, version_manifest={"lenses": [1]}), tmp_path, block=1)


def test_an_export_is_not_imported_for_another_model(pack: Path, tmp_path: Path, info: PackInfo) -> None:
    export_legacy(pack, tmp_path / "old")
    other = info.model.model_copy(update={"fingerprint": "12" * 32})
    with pytest.raises(PackError, match=r"made for tiny \(abababab\), --model is tiny \(12121212\)"):
        import_legacy(tmp_path / "old", tmp_path / "new", model=other)
    (tmp_path / "old/ftw_index.json").write_text('{"rows": []}')
    with pytest.raises(PackError, match=r"ftw_index\.json: info"):
        import_legacy(tmp_path / "old", tmp_path / "new2", model=info.model)


def test_a_simplex_without_a_block_or_of_another_width_is_refused(legacy: Home, tmp_path: Path) -> None:
    results = {"Food": {"selected_layers": [4]}}
    folder = legacy({"layer0/Food.pt": lens(), "simplexes/mood.pt": TripoleLens(D)}, layer0__results=results)
    with pytest.raises(UsageError, match="which block the simplex mood reads"):
        refused(folder, tmp_path)
    save_classifier(TripoleLens(5), folder / "simplexes/mood.pt")
    with pytest.raises(PackError, match="takes states of width 5"):
        import_legacy(folder, tmp_path / "a", model=MODEL, block=4)
    assert not list((tmp_path / "a").iterdir())  # nothing half imported, and the same folder can be named again


@pytest.mark.parametrize("other", ["layer1/Food_classifier.pt", "layer1/classifiers/food.pt", "layer1/food.pt"])
def test_two_files_of_one_concept_are_refused_before_any_is_read(legacy: Home, tmp_path: Path, other: str) -> None:
    folder = legacy({"layer1/Food.pt": lens(), other: lens(1)})
    with pytest.raises(PackError, match=r"are both of .ood at level 1: remove one"):
        read_legacy(folder)


def test_a_partial_pack_or_an_odd_name_is_not_exported(
    pack: Path, tmp_path: Path, info: PackInfo, rows: tuple[LensRow, ...], blocks: dict[int, LensTensors]
) -> None:
    odd = (rows[0].model_copy(update={"term": "a/b"}), *rows[1:])
    save_pack(tmp_path / "odd", info, odd, blocks)
    with pytest.raises(PackError, match="'a/b' cannot be the name of a file"):
        export_legacy(tmp_path / "odd", tmp_path / "x")
    (pack / "level1.safetensors").unlink()
    with pytest.raises(PackError, match="is partial: level 1"):
        export_legacy(pack, tmp_path / "y")
    with pytest.raises(StorageError, match="not an empty folder"):
        export_legacy(pack, pack)
