"""The teacher is the model's own distribution, transform and all, and its gradient is autograd's."""

import pytest
import torch

from ftw.substrate.errors import SiteError
from ftw.substrate.model import from_net, load
from ftw.substrate.unembed import head_input, unembed
from ftw.sweep import forward
from ftw.sweep.fitting.teacher import Teacher
from tests.substrate.families import build

pytestmark = pytest.mark.filterwarnings("ignore")
FAMILIES = ["llama", "gemma2", "cohere", "granite", "gpt-j"]  # plain, softcap, scale, divided, a head with a bias


@pytest.mark.parametrize("family", FAMILIES)
def test_the_truth_is_the_models_own_softmax(family: str) -> None:
    model = from_net(build(family))
    ids = [5, 9, 3, 7]
    final = forward.read(model, [ids], positions="all").states[-1].clone()
    with torch.no_grad():
        expected = model.net(input_ids=torch.tensor([ids])).logits[0].float().softmax(-1)
    truth = Teacher(model.arch).truth(head_input(model.arch, final))
    torch.testing.assert_close(truth.p, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(truth.entropy, -(expected * expected.log()).sum(-1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_divergence_and_gradient_are_those_of_autograd(family: str) -> None:
    model = from_net(build(family))
    draw = torch.Generator().manual_seed(0)
    teacher = Teacher(model.arch)
    target = torch.randn(6, model.d_model, generator=draw)
    state = 2 * torch.randn(6, model.d_model, generator=draw)
    truth = teacher.truth(head_input(model.arch, target))

    by_autograd = state.clone().requires_grad_()
    log_q = unembed(model.arch, by_autograd).log_softmax(-1)
    expected = (truth.p * (truth.p.log() - log_q)).sum(-1)
    expected.sum().backward()

    by_hand = state.clone().requires_grad_()
    h = head_input(model.arch, by_hand)
    kl, pull = teacher.divergence(truth, h.detach())
    torch.autograd.backward(h, pull)

    torch.testing.assert_close(kl, expected.detach(), atol=1e-5, rtol=1e-4)
    assert by_autograd.grad is not None
    torch.testing.assert_close(by_hand.grad, by_autograd.grad, atol=1e-5, rtol=1e-3)


def test_a_student_that_is_the_teacher_costs_nothing() -> None:
    model = load("tiny")
    teacher = Teacher(model.arch)
    h = head_input(model.arch, torch.randn(3, 32, generator=torch.Generator().manual_seed(0)))
    kl, pull = teacher.divergence(teacher.truth(h), h)
    assert bool((kl >= 0).all())
    assert float(kl.max()) < 1e-5
    assert float(pull.abs().max()) < 1e-5


def test_a_head_without_a_weight_is_refused() -> None:
    model = load("tiny")
    from dataclasses import replace

    with pytest.raises(SiteError, match="has no weight to decode with"):
        Teacher(replace(model.arch, head=torch.nn.Identity()))
