"""Small banks for the tests of hat: random lenses that really fire on some states and not on others."""

from collections.abc import Callable

import pytest
import torch

from ftw.hat.classifiers import (
    MLP,
    Baseline,
    Calibration,
    ConceptPackId,
    LensRow,
    LensTensors,
    LinearProbe,
    ModelId,
    PackInfo,
)

D = 32
PER_BLOCK = {1: 5, 2: 7}


@pytest.fixture
def modules() -> dict[int, list[tuple[MLP, LinearProbe]]]:
    """Random lenses and screens per block."""
    torch.manual_seed(0)
    made: dict[int, list[tuple[MLP, LinearProbe]]] = {}
    for block, n in PER_BLOCK.items():
        made[block] = [(MLP(D).eval(), LinearProbe(D)) for _ in range(n)]
        for lens, _ in made[block]:
            for parameter in lens.parameters():
                parameter.data.mul_(3)
    return made


@pytest.fixture
def blocks(modules: dict[int, list[tuple[MLP, LinearProbe]]]) -> dict[int, LensTensors]:
    """Their weights, with a screen that lets about half of the pairs pass."""
    return {
        block: LensTensors.stack([m for m, _ in pairs], [s for _, s in pairs], torch.zeros(len(pairs)))
        for block, pairs in modules.items()
    }


@pytest.fixture
def rows() -> tuple[LensRow, ...]:
    """An index for them: concept b1r0, b1r1, … with calibrations that differ."""
    return tuple(
        LensRow(
            term=f"B{block}R{row}",
            block=block,
            row=row,
            threshold_logit=0.05 * row,
            calibration=Calibration(slope=1 + row, offset=0.1 * row),
            baseline=Baseline(mean=0.1, std=0.05 * row),
            auroc_words=0.9,
            auroc_templates=0.95,
            fpr=0.01,
            n_pos=10,
            n_words=4,
        )
        for block, n in PER_BLOCK.items()
        for row in range(n)
    )


@pytest.fixture
def info() -> PackInfo:
    """The identity of a pack of them."""
    return PackInfo(
        name="tiny_everyday",
        version="1.0.0",
        model=ModelId(name="tiny", fingerprint="ab" * 32, d_model=D, n_layers=4),
        concept_pack=ConceptPackId(name="everyday", version="1.0.0", sha256="cd" * 32),
        sites=tuple(PER_BLOCK),
    )


@pytest.fixture
def states() -> Callable[[int], torch.Tensor]:
    """Random states of n rows, as a residual stream has them: large, with an offset."""
    generator = torch.Generator().manual_seed(7)
    return lambda n: 40 * torch.randn(n, D, generator=generator) + 5
