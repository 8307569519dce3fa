"""The bundled folder and the tiny model."""

import torch

from ftw.substrate.bundled import BOS, reference_dir, tiny_net
from ftw.substrate.checkpoint import open_checkpoint
from ftw.substrate.reference import tiny


def test_the_bundled_folder_is_a_whole_model_with_a_tokenizer() -> None:
    checkpoint = open_checkpoint(reference_dir())
    assert checkpoint.is_safe
    assert checkpoint.has_tokenizer
    assert checkpoint.n_bytes < 16 << 20


def test_tiny_is_the_same_for_the_same_seed_and_leaves_the_global_dice_alone() -> None:
    state = torch.get_rng_state()
    first, again, other = tiny_net(3), tiny_net(3), tiny_net(4)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


def test_the_tiny_tokenizer_has_a_token_per_byte_and_begins_a_text() -> None:
    model = tiny()
    assert model.encode("A\u00e9") == [BOS, 65, 0xC3, 0xA9]
    assert model.decode(range(32, 127)) == "".join(map(chr, range(32, 127)))
