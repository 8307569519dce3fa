"""Finds the anatomy of a causal language model by watching one forward pass. No table of model types.

Blocks: the one stack of modules that runs once, in order, and is not inside another such stack. Tail: what the data
passes through between the last block and the head. Head: transformers' output embeddings, seen at work. Transform: what
turns the head's output into the logits, read from the config and confirmed on the tensors. `ftw.substrate.gate` then
proves the whole on a second input.

The rule of the file: nothing is believed that was not seen. What cannot be established is refused by name.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ftw.substrate.anatomy import Arch, LogitTransform, first_tensor, replay_tail
from ftw.substrate.errors import NotCausalLM, Refused
from ftw.substrate.gate import Gate, gate
from ftw.substrate.probe import (
    FORWARD_ERRORS,
    at_rest,
    config,
    embedding,
    first_line,
    look,
    name,
    probe_ids,
    text_config,
)
from ftw.substrate.transform import fit_transform, tolerance
from ftw.substrate.watch import Call, Witness, watch

__all__ = ["Arch", "Gate", "LogitTransform", "find", "gate"]

PROBE = 12
"""Positions of the input that is watched."""
DEPTHS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers")
"""Where configs say how many blocks there are."""


def find(net: nn.Module) -> Arch:
    """The anatomy of a transformers model, from two short forward passes (12 tokens, two rows, no cache).

    Raises NotCausalLM where later tokens change earlier logits or there are no logits at all, and Refused, with the
    reason, where the parts cannot be told. What was found but does not add up is left to the gate, in `Arch.doubt`.
    """
    with at_rest(net):
        ids = _two_futures(net)
        path, blocks = _find_blocks(net, ids)
        head_path, head = _find_head(net)
        witness, logits = _look_again(net, ids, blocks, head)
        _check_causal(net, logits)
        last, d_model = _check_stream(witness, blocks, path)
        used = witness.of(head)
        if not used or used[-1].given is None or used[-1].gave is None:
            raise Refused(f"{name(net)}: its head {head_path} takes no part in the forward pass")
        tail, gain = _follow(witness, last, used[-1])
        transform, source, doubt = _find_transform(net, (tail, gain), head, last, logits)
    names = {id(module): name for name, module in net.named_modules()}
    return Arch(
        blocks=blocks,
        blocks_path=path,
        embed=embedding(net),
        tail=tail,
        tail_paths=tuple(names.get(id(module), "?") for module in tail),
        head=head,
        head_path=head_path,
        transform=transform,
        transform_source=source,
        d_model=d_model,
        n_layers=len(blocks),
        vocab_size=logits.shape[-1],
        gain=gain,
        doubt=doubt,
    )


def _two_futures(net: nn.Module) -> Tensor:
    """Two rows that differ in the last token only: a causal model cannot tell them apart before it."""
    row = probe_ids(net, PROBE + 8, seed=1)[0]
    other = next((token for token in row[PROBE:] if token != row[PROBE - 1]), row[PROBE])
    ids = row[:PROBE].repeat(2, 1)
    ids[1, -1] = other
    return ids


def _check_causal(net: nn.Module, logits: Tensor) -> None:
    early = logits[:, :-1].float()
    bad = int((~torch.isfinite(early)).sum())
    if bad:
        raise Refused(
            f"{name(net)} gives scores that are not finite ({bad} of {early.numel()} for plain tokens): its weights "
            "are damaged, or its dtype is too narrow. Download it again, or use --dtype float32"
        )
    gap = float((early[0] - early[1]).abs().max())
    bound = 100 * tolerance(logits)
    if not gap <= bound:
        raise NotCausalLM(
            f"{name(net)} is not a causal language model: changing the last token moves earlier scores by {gap:.3g}"
        )


@dataclass(frozen=True)
class _Stack:
    path: str
    modules: nn.ModuleList
    counts: tuple[int, ...]
    """How often each of them ran."""

    @property
    def runs_once(self) -> bool:
        return all(count == 1 for count in self.counts)


def _find_blocks(net: nn.Module, ids: Tensor) -> tuple[str, nn.ModuleList]:
    lists = [(name, m) for name, m in net.named_modules() if isinstance(m, nn.ModuleList) and len(m)]
    with watch(child for _, stack in lists for child in stack) as witness:
        look(net, ids)
    stacks = [_Stack(name, m, tuple(len(witness.of(child)) for child in m)) for name, m in lists]
    ran = _outermost([stack for stack in stacks if any(stack.counts)])
    depths = {int(value) for key in DEPTHS if isinstance(value := getattr(text_config(net), key, None), int)}
    fitting = [stack for stack in ran if len(stack.modules) in depths] or ran
    once = [stack for stack in fitting if stack.runs_once]
    if len(once) == 1:
        return once[0].path, once[0].modules
    if once:
        raise Refused(f"{name(net)}: several stacks could be its blocks: {', '.join(s.path for s in once)}")
    if fitting:
        stack = fitting[0]
        times = f"{min(stack.counts)} to {max(stack.counts)}" if len(set(stack.counts)) > 1 else stack.counts[0]
        raise Refused(f"{name(net)}: its blocks {stack.path} run {times} times in one pass, not once in order")
    raise Refused(f"{name(net)}: no stack of blocks takes part in the forward pass")


def _outermost(stacks: Sequence[_Stack]) -> list[_Stack]:
    return [s for s in stacks if not any(s.path.startswith(f"{other.path}.") for other in stacks)]


def _find_head(net: nn.Module) -> tuple[str, nn.Module]:
    getter: Any = getattr(net, "get_output_embeddings", None)
    head = getter() if getter is not None else None
    if not isinstance(head, nn.Module):
        raise NotCausalLM(f"{name(net)} has no output head: it does not predict tokens")
    return next((name for name, module in net.named_modules() if module is head), "?"), head


def _look_again(net: nn.Module, ids: Tensor, blocks: nn.ModuleList, head: nn.Module) -> tuple[Witness, Tensor]:
    """The same pass, with the tensors of the blocks, the head, and everything beside the way from one to the other."""
    inside: set[int] = set()
    for module in net.modules():
        if any(part is blocks or part is head for part in module.modules()):
            inside.add(id(module))
    beside = [child for m in net.modules() if id(m) in inside for child in m.children() if id(child) not in inside]
    keep = [*blocks, *(m for m in beside if not any(m is block for block in blocks)), head]
    with watch(keep, keep=keep) as witness:
        logits = look(net, ids)
    return witness, logits


def _check_stream(witness: Witness, blocks: nn.ModuleList, path: str) -> tuple[Call, int]:
    """The last block's call and the width of the stream; every block must return a stream of one shape."""
    shapes = []
    calls = []
    for index, block in enumerate(blocks):
        call = witness.of(block)[-1]
        if call.gave is None or call.gave.dim() != 3:
            got = "no tensor" if call.gave is None else f"a tensor {tuple(call.gave.shape)}"
            raise Refused(f"block {path}.{index} returns {got}, not one stream [batch, pos, d_model]")
        shapes.append(tuple(call.gave.shape))
        calls.append(call)
    if len(set(shapes)) > 1:
        raise Refused(f"the blocks {path} return streams of different shapes: {sorted(set(shapes))}")
    last = max(calls, key=lambda call: call.ended)
    if last.module is not blocks[-1]:
        raise Refused(f"the blocks {path} do not run in their order")
    return last, shapes[0][-1]


def _follow(witness: Witness, last: Call, used: Call) -> tuple[tuple[nn.Module, ...], float]:
    """The modules that the data passes through from the last block to the head, and the gain before the first of them.

    Followed by the data itself; where something unseen acts in between, by the order of the calls.
    """
    between = [call for call in witness.calls if last.ended < call.began and call.ended < used.began]
    between.sort(key=lambda call: call.began)
    at = last.gave
    chain: list[nn.Module] = []
    for call in between:
        if _same(call.given, at) and call.gave is not None:
            at = call.gave
            chain.append(call.module)
    if _same(used.given, at):
        return tuple(chain), 1.0
    streams = [call for call in between if call.gave is not None and _is_stream(call, last)]
    gains = [gain for call in streams[:1] if (gain := _gain(last.gave, call.given)) is not None]
    return tuple(call.module for call in streams), gains[0] if gains else 1.0


def _gain(gave: Tensor | None, given: Tensor | None) -> float | None:
    """The factor between two streams, if they differ by nothing else. Read off the largest number: exact for halves."""
    if gave is None or given is None or gave.shape != given.shape:
        return None
    where = int(gave.abs().argmax())
    gain = float(given.flatten()[where].double() / gave.flatten()[where].double())
    rest = (gave.double() * gain - given.double()).abs().max()
    return gain if float(rest) <= tolerance(given) else None


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is not None and b is not None and a.shape == b.shape and torch.equal(a.to(b.dtype), b)


def _is_stream(call: Call, last: Call) -> bool:
    return call.given is not None and last.gave is not None and call.given.shape[:-1] == last.gave.shape[:-1]


def _find_transform(
    net: nn.Module, way: tuple[tuple[nn.Module, ...], float], head: nn.Module, last: Call, logits: Tensor
) -> tuple[LogitTransform, str, str | None]:
    """The logit transform, where it comes from, and the reason to doubt it, if there is one."""
    plain = LogitTransform()
    if last.gave is None:
        return plain, "none", "the last block returned no tensor"
    try:
        hidden = replay_tail(way[0], last.gave, way[1])
        scores = first_tensor(head(hidden))
    except FORWARD_ERRORS as error:
        return plain, "none", f"what runs after the last block cannot be replayed: {first_line(error)}"
    weight = getattr(head, "weight", None)
    if scores is None or not isinstance(weight, Tensor) or weight.dim() != 2:
        return plain, "none", f"the head is a {type(head).__name__}, not a linear map"
    size = logits.shape[-1]
    if scores.shape[-1] < size or weight.shape[0] != scores.shape[-1]:
        return plain, "none", f"the head gives {scores.shape[-1]} scores, the model {size}"
    # Some models cut the padding of the vocabulary off their logits.
    scores = scores[..., :size]
    found = fit_transform(scores, logits, [config(net), text_config(net)])
    return found.transform, found.source, found.doubt
