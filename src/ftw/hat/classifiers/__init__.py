"""Concept lenses (residual to score), the bank that scores thousands of them at once, and their files."""

from ftw.hat.classifiers.bank import LensBank
from ftw.hat.classifiers.choice import LensPackFiles, select
from ftw.hat.classifiers.convert import Parity, convert_pack, parity
from ftw.hat.classifiers.exchange import Exchanged, export_legacy, import_legacy
from ftw.hat.classifiers.gate import Gate, GateFit, fit_gate, load_gate, save_gate
from ftw.hat.classifiers.hierarchy import Tree
from ftw.hat.classifiers.index import (
    Baseline,
    Calibration,
    ConceptPackId,
    LensRow,
    ModelId,
    PackInfo,
    Reliability,
    Role,
)
from ftw.hat.classifiers.layout import Header, Place, level_file, level_of, places, verify_pack
from ftw.hat.classifiers.legacy import load_classifier, save_classifier
from ftw.hat.classifiers.lens import ClassifierInfo, ConceptLens
from ftw.hat.classifiers.modules import MLP, LinearProbe, normalise
from ftw.hat.classifiers.packfile import PackFile, open_lens, open_level, read_level
from ftw.hat.classifiers.readout import Pending, Readings, Readout
from ftw.hat.classifiers.scores import Scores
from ftw.hat.classifiers.screen import (
    ScreenFit,
    ScreenReport,
    Screens,
    fit_screen_thresholds,
    fit_screens,
    measure_screen,
)
from ftw.hat.classifiers.store import load_bank, load_pack, save_pack
from ftw.hat.classifiers.tensors import LensTensors
from ftw.hat.classifiers.tripole import (
    SimplexBinding,
    SimplexRow,
    Spread,
    TripoleBank,
    TripoleLens,
    load_simplexes,
    save_simplexes,
    tripole_loss,
)
from ftw.hat.classifiers.trunk import (
    Trunk,
    TrunkReport,
    fit_trunk,
    load_trunks,
    reexpress,
    save_trunks,
    trunk_report,
)

__all__ = [
    "MLP",
    "Baseline",
    "Calibration",
    "ClassifierInfo",
    "ConceptLens",
    "ConceptPackId",
    "Exchanged",
    "Gate",
    "GateFit",
    "Header",
    "LensBank",
    "LensPackFiles",
    "LensRow",
    "LensTensors",
    "LinearProbe",
    "ModelId",
    "PackFile",
    "PackInfo",
    "Parity",
    "Pending",
    "Place",
    "Readings",
    "Readout",
    "Reliability",
    "Role",
    "Scores",
    "ScreenFit",
    "ScreenReport",
    "Screens",
    "SimplexBinding",
    "SimplexRow",
    "Spread",
    "Tree",
    "TripoleBank",
    "TripoleLens",
    "Trunk",
    "TrunkReport",
    "convert_pack",
    "export_legacy",
    "fit_gate",
    "fit_screen_thresholds",
    "fit_screens",
    "fit_trunk",
    "import_legacy",
    "level_file",
    "level_of",
    "load_bank",
    "load_classifier",
    "load_gate",
    "load_pack",
    "load_simplexes",
    "load_trunks",
    "measure_screen",
    "normalise",
    "open_lens",
    "open_level",
    "parity",
    "places",
    "read_level",
    "reexpress",
    "save_classifier",
    "save_gate",
    "save_pack",
    "save_simplexes",
    "save_trunks",
    "select",
    "tripole_loss",
    "trunk_report",
    "verify_pack",
]
