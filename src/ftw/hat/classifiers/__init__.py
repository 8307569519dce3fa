"""Concept lenses (residual to score), the bank that scores thousands of them at once, and their files."""

from ftw.hat.classifiers.bank import LensBank
from ftw.hat.classifiers.index import Baseline, Calibration, ConceptPackId, LensRow, ModelId, PackInfo
from ftw.hat.classifiers.lens import ClassifierInfo, ConceptLens
from ftw.hat.classifiers.modules import MLP, LinearProbe, normalise
from ftw.hat.classifiers.scores import Scores
from ftw.hat.classifiers.screen import ScreenFit, ScreenReport, fit_screen_thresholds, measure_screen
from ftw.hat.classifiers.store import LensPackFiles, load_bank, load_pack, save_pack
from ftw.hat.classifiers.tensors import LensTensors

__all__ = [
    "MLP",
    "Baseline",
    "Calibration",
    "ClassifierInfo",
    "ConceptLens",
    "ConceptPackId",
    "LensBank",
    "LensPackFiles",
    "LensRow",
    "LensTensors",
    "LinearProbe",
    "ModelId",
    "PackInfo",
    "Scores",
    "ScreenFit",
    "ScreenReport",
    "fit_screen_thresholds",
    "load_bank",
    "load_pack",
    "measure_screen",
    "normalise",
    "save_pack",
]
