"""Where a concept's direction comes from. All directions are unit vectors in fp32, in the raw residual stream.

`word_gradient` is what packs ship: the direction along which the model's own probability of writing one of the
concept's words grows fastest, over neutral text. `difference_of_means` needs no gradient, `lens_gradient` no model.
The rule of the file: a direction that cannot be told (no states, no words, zero) is an error, never a random vector.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ftw.hat.classifiers.modules import EPS, MLP
from ftw.substrate.errors import NumericError, UsageError
from ftw.substrate.model import Model
from ftw.substrate.taps import tap
from ftw.substrate.types import Edit, Site

_ENOUGH = 2
"""So many words of one token tell a concept by themselves."""
_LONG = 4
"""The first token of a longer word tells it from this many letters on."""


def difference_of_means(
    states: Mapping[str, Float[Tensor, "_ d_model"]], *, whiten: float | None = None
) -> Float[Tensor, "concept d_model"]:
    """Per concept, its mean state minus the mean of all concepts' means; rows in the order of `states`.

    States are brought to norm 1 first, so that a few large ones do not decide. With `whiten` (0 to 1, the shrinkage
    towards a round covariance) the difference is divided by the covariance within concepts: Fisher's discriminant.
    """
    if len(states) < 2 or any(len(own) == 0 for own in states.values()):
        raise UsageError("a difference of means needs states of at least two concepts, and at least one state of each")
    units = [F.normalize(own.float(), dim=-1) for own in states.values()]
    means = torch.stack([own.mean(0) for own in units])
    differences = means - means.mean(0)
    if whiten is not None:
        if not 0 < whiten <= 1:
            raise UsageError(f"whiten is {whiten}: the shrinkage lies in (0, 1]")
        rest = torch.cat([own - mean for own, mean in zip(units, means, strict=True)])
        covariance = rest.T @ rest / len(rest)
        round_one = torch.eye(len(covariance), device=rest.device) * covariance.diagonal().mean().clamp(min=1e-12)
        differences = torch.linalg.solve((1 - whiten) * covariance + whiten * round_one, differences.T).T
    return unit(differences, list(states))


def lens_gradient(lens: MLP, resid: Float[Tensor, "*row d_model"]) -> Float[Tensor, "*row d_model"]:
    """The gradient of a lens's logit by the raw state, at each state. Closed form, fp32: no autograd, no graph.

    logit = w3 relu(W2 relu(W1 x + b1) + b2) + b3 with x = (h - mean) / sigma; through both ReLU masks and the norm.
    Divide by its norm for a direction; dlogit / norm**2 times it is the smallest step that adds dlogit to the logit.
    """
    h = resid.float()
    sigma = (h.var(-1, correction=0, keepdim=True) + EPS).sqrt()
    x = (h - h.mean(-1, keepdim=True)) / sigma
    z1 = F.linear(x, lens.first.weight.detach(), lens.first.bias.detach())
    z2 = F.linear(z1.relu(), lens.second.weight.detach(), lens.second.bias.detach())
    g = (z2 > 0) * lens.last.weight.detach()[0]
    g = (z1 > 0) * (g @ lens.second.weight.detach())
    g = g @ lens.first.weight.detach()
    gradient: Tensor = (g - g.mean(-1, keepdim=True) - x * (g * x).mean(-1, keepdim=True)) / sigma
    return gradient


def word_gradient(
    model: Model, site: Site, words: Mapping[str, Sequence[int]], contexts: Sequence[Sequence[int]]
) -> Float[Tensor, "concept d_model"]:
    """Per concept, the direction at `site` that most raises the probability of its words as the next token.

    The gradient of log p(next token is one of `words[concept]`), token ids, at every position of `contexts` after the
    first; each position's gradient counts with the same length. One forward pass, one backward pass per concept, in
    fp32 where the model is. No gradient is left on the model.
    """
    if any(not tokens for tokens in words.values()) or not contexts:
        bad = next((term for term, tokens in words.items() if not tokens), None)
        raise UsageError(f"no words of {bad!r} to raise" if bad else "no contexts to take gradients in")
    ids, mask = padded(contexts, model.device)
    push = torch.zeros(*ids.shape, model.d_model, device=model.device, dtype=model.dtype, requires_grad=True)
    frozen = [parameter for parameter in model.net.parameters() if parameter.requires_grad]
    try:
        for parameter in frozen:
            parameter.requires_grad_(False)
        with torch.enable_grad(), tap(model, edits=[Edit(site, lambda stream: stream + push)]):
            logits = model.net(input_ids=ids, attention_mask=mask, use_cache=False).logits
            logp = logits.float().log_softmax(-1)
            counted = mask.bool()
            counted[:, 0] = False
            rows = [_mean_gradient(logp, push, counted, tokens) for tokens in words.values()]
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
    return unit(torch.stack(rows), list(words))


def _mean_gradient(logp: Tensor, push: Tensor, counted: Tensor, tokens: Sequence[int]) -> Tensor:
    chosen = logp.index_select(-1, torch.tensor(list(tokens), device=logp.device)).logsumexp(-1)
    (gradient,) = torch.autograd.grad(chosen[counted].sum(), push, retain_graph=True)
    return F.normalize(gradient[counted].float(), dim=-1).mean(0)


def word_tokens(model: Model, words: Sequence[str]) -> tuple[int, ...]:
    """The token ids that stand for words in running text, after a space.

    Words of one token count. Where there are fewer than two of them, words of several tokens count with their first
    one if it has at least four letters: shorter ones point to what else begins that way, and so do all of them where
    whole words are enough (measured: half the effect). Raises UsageError without a tokenizer.
    """
    if model.tokenizer is None:
        raise UsageError(f"{model.name} has no tokenizer: words cannot be told")
    spelled = [model.tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in words]
    whole = dict.fromkeys(int(ids[0]) for ids in spelled if len(ids) == 1)
    if len(whole) >= _ENOUGH:
        return tuple(whole)
    parts = (int(ids[0]) for ids in spelled if len(ids) > 1 and len(model.decode(ids[:1]).strip()) >= _LONG)
    return tuple(dict.fromkeys([*whole, *parts]))


def padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask [row, pos], filled up on the right with token 0."""
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
    return ids, mask


def unit(vectors: Float[Tensor, "concept d_model"], names: Sequence[str]) -> Float[Tensor, "concept d_model"]:
    """Rows brought to norm 1, fp32. Raises NumericError that names the first row that has no direction."""
    rows = vectors.detach().float()
    norms = rows.norm(dim=-1)
    good = norms.isfinite() & (norms > 0)
    if not bool(good.all()):
        raise NumericError(
            f"no direction for {names[int(good.logical_not().nonzero()[0])]!r}: it is zero or not finite"
        )
    found: Tensor = rows / norms[:, None]
    return found
