"""Steering: directions for concepts, edits that push along them, and the measure of effect and damage."""

from ftw.hat.steering.directions import difference_of_means, lens_gradient, word_gradient, word_tokens
from ftw.hat.steering.edits import DEFAULT_STRENGTH, GAIN, Direction, Steer, steer_edit, steer_edits
from ftw.hat.steering.evaluation import Effect, Evaluator, Expected, calibrated, expected, word_rate
from ftw.hat.steering.table import Directions, load_directions, save_directions, train_directions

__all__ = [
    "DEFAULT_STRENGTH",
    "GAIN",
    "Direction",
    "Directions",
    "Effect",
    "Evaluator",
    "Expected",
    "Steer",
    "calibrated",
    "difference_of_means",
    "expected",
    "lens_gradient",
    "load_directions",
    "save_directions",
    "steer_edit",
    "steer_edits",
    "train_directions",
    "word_gradient",
    "word_rate",
    "word_tokens",
]
