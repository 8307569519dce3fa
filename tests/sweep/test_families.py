"""Every architecture: the sweep's last row is the model's own distribution, in company as alone, or it is refused."""

import pytest
import torch

from ftw.substrate.errors import Refused
from ftw.substrate.model import from_net
from ftw.sweep.run import Sweep
from tests.substrate.families import FAMILIES, build

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own deprecations, model by model

EXACT = sorted(name for name, family in FAMILIES.items() if family.refused is None)
REFUSED = sorted(name for name, family in FAMILIES.items() if family.refused is not None)
PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [20, 21, 22, 23], [30, 31, 32, 33, 34, 35]]


@pytest.mark.parametrize("name", EXACT)
def test_the_last_row_is_the_models_own_log_probabilities_and_company_changes_nothing(name: str) -> None:
    model = from_net(build(name))
    table = Sweep(model, k=9).run(PROMPTS, positions="all", budget=10**6)
    assert len(table) == sum(map(len, PROMPTS)) * (model.n_layers + 1)
    for prompt, ids in enumerate(PROMPTS):
        with torch.no_grad():
            own = model.net(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float().log_softmax(-1)
        last = table.where(prompt=prompt, layer=model.n_layers)
        best = torch.as_tensor(last["top_ids"]).long()
        said = torch.as_tensor(last["top_logprobs"])
        torch.testing.assert_close(said, own.gather(-1, best), rtol=0, atol=1e-4)
        torch.testing.assert_close(said[:, 0], own.amax(-1), rtol=0, atol=1e-4)
        following = torch.tensor([*ids[1:], 0])[:, None]
        torch.testing.assert_close(
            torch.as_tensor(last["next_logprob"])[:-1], own.gather(-1, following)[:-1, 0], rtol=0, atol=1e-4
        )
        assert abs(last["kl_bits"]).max() == 0
        single = Sweep(model, k=9).run([ids], positions="all")
        for column in ("entropy_bits", "logsumexp", "resid_norm", "next_logprob"):
            torch.testing.assert_close(
                torch.as_tensor(table.where(prompt=prompt)[column]),
                torch.as_tensor(single[column]),
                rtol=1e-4,
                atol=1e-4,
                equal_nan=True,
            )


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_decoded_is_refused_by_name(name: str) -> None:
    with pytest.raises(Refused, match=FAMILIES[name].refused):
        Sweep(from_net(build(name)))
