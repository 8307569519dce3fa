"""The engine writes what transformers writes for every family: padded batches, windows, biases, state caches."""

import random

import pytest
import torch
from transformers import AutoModelForCausalLM

from ftw.substrate.engine import Request, TransformersEngine
from ftw.substrate.engine_lanes import SoloLane, Traits, study
from ftw.substrate.errors import ModelError
from ftw.substrate.model import Model, from_net
from tests.substrate import families

EVERY_DAY = {
    "gpt2": "prepared",
    "opt": "prepared",
    "bloom": "padded",
    "gemma3": "prepared",
    "mistral": "prepared",
    "gpt-oss": "prepared",
    "mamba": "solo",
    "lfm2": "solo",
    "recurrent-gemma": "serial",
}
"""One family of each kind, and how its requests share passes."""
WITHOUT_STATE = {"openai-gpt": "keeps no state between tokens", "xlstm": "cannot go on"}
"""Models that transformers itself cannot continue from a state (xLSTM: in this configuration)."""
REST = sorted(
    name
    for name, family in families.FAMILIES.items()
    if name not in EVERY_DAY and family.refused is None and name not in WITHOUT_STATE
)
NEW = 9


def lively(name: str) -> Model:
    """A random net in which attention looks somewhere, with windows that a short text leaves behind."""
    config = families.config(name)
    text = config.get_text_config()
    if getattr(text, "sliding_window", None):
        text.sliding_window = 6
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        families.randomise(net)
        with torch.no_grad():
            for weight in net.parameters():
                if weight.ndim == 2 and weight.shape[0] != families.VOCAB:
                    weight.mul_(4)
    return from_net(net, name=name)


def generated(model: Model, ids: tuple[int, ...]) -> tuple[int, ...]:
    row = torch.tensor([ids])
    out = model.net.generate(
        row, attention_mask=torch.ones_like(row), max_new_tokens=NEW, do_sample=False, pad_token_id=0
    )
    return tuple(out[0, len(ids) :].tolist())


def check(model: Model) -> TransformersEngine:
    """Requests of four lengths, one of them late, write what `generate` writes for each alone."""
    rng = random.Random(0)
    prompts = [tuple(rng.randrange(3, families.VOCAB - 8) for _ in range(length)) for length in (4, 11, 1, 7)]
    engine = TransformersEngine(model)
    names = [engine.submit(Request(ids, NEW)) for ids in prompts[:3]]
    chunks = [*engine.step(), *engine.step()]
    names.append(engine.submit(Request(prompts[3], NEW)))
    while engine.has_work:
        chunks += engine.step()
    for name, ids in zip(names, prompts, strict=True):
        assert tuple(one.token for one in chunks if one.request_id == name) == generated(model, ids)
    return engine


@pytest.mark.parametrize("name", EVERY_DAY)
def test_a_mixed_batch_writes_what_generate_writes(name: str) -> None:
    assert check(lively(name)).traits.mode == EVERY_DAY[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", REST)
def test_a_mixed_batch_of_any_family_writes_what_generate_writes(name: str) -> None:
    check(lively(name))


@pytest.mark.parametrize(("name", "message"), WITHOUT_STATE.items())
def test_a_model_without_state_between_tokens_is_refused_by_name(name: str, message: str) -> None:
    model = lively(name)
    with pytest.raises(ModelError, match=rf"^{type(model.net).__name__} {message}"):
        TransformersEngine(model).generate(Request((5,), 3))


def test_the_study_says_what_ruled_the_faster_modes_out() -> None:
    def traits(name: str) -> Traits:
        return study(families.build(name))

    assert traits("bloom").why.startswith("prepared: ")
    assert "other than key-value layers" in traits("mamba").why or "takes no key-value cache" in traits("mamba").why


def test_a_state_that_was_half_written_is_never_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    net = families.build("mamba")
    lane = SoloLane(net, study(net))
    lane.prefill([[5, 6, 7]])
    lane.join()

    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(net.backbone.layers[1], "forward", interrupted)
        with pytest.raises(KeyboardInterrupt):
            lane.decode([8])
    with pytest.raises(ModelError, match="state was lost when a pass was broken off: submit it again"):
        lane.decode([8])
