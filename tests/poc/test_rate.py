"""The whole pipeline gives vectors as likely near a target as theory says: inputs, model, reflections, rotation."""

import math

import numpy as np
import torch

from ftw.poc.codec import decode
from ftw.poc.forward import artifacts
from ftw.poc.profiles import DISTANCE_K64
from ftw.poc.radius import rate_of
from ftw.poc.readout import target
from ftw.poc.seeds import SeedStrings
from ftw.substrate.model import load

N = 2048
RADIUS = 1.34


def test_as_many_vectors_lie_within_the_radius_of_the_target_as_theory_says() -> None:
    expected = rate_of(RADIUS, 64)
    assert abs(expected - 0.2089) < 5e-5
    model = load("reference")
    found = []
    for key in ("one", "two"):
        made = artifacts(model, DISTANCE_K64, "block", key, range(N // 2), seq_len=4, rows=64)
        aim = target(SeedStrings("block", key), 64)
        vectors = torch.from_numpy(np.stack([decode(one.vector_b64, 64) for one in made])).float()
        found.append((vectors - aim).norm(dim=1) < RADIUS)
    rate = torch.cat(found).float().mean().item()
    assert abs(rate - expected) < 3 * math.sqrt(expected * (1 - expected) / N)
