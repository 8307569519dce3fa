"""The model under test with the few readings every measurement needs. All computation in fp32."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from tools.reference_model.chats import ASSISTANT, BOS, USER

GENERATION_ROWS = 96


def prompt_of(question: str) -> str:
    """A question in the marks of the chat template, ready to be answered."""
    return f"{USER}{question}{ASSISTANT}"


class Subject:
    """A model folder, or a random-weight twin of it."""

    def __init__(self, folder: Path, is_random_twin: bool = False) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        if is_random_twin:
            torch.manual_seed(1)
            self.model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)
        else:
            self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.model.eval()
        self.blocks: int = self.model.config.num_hidden_layers

    @property
    def layers(self) -> nn.ModuleList:
        layers: nn.ModuleList = self.model.model.layers
        return layers

    def ids(self, text: str) -> list[int]:
        """Token ids with the mark of the beginning."""
        return list(self.tokenizer(text.removeprefix(BOS))["input_ids"])

    def bare_ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def batch(self, rows: Sequence[list[int]], pad_left: bool = False) -> tuple[Tensor, Tensor]:
        """Padded ids and their attention mask."""
        width = max(map(len, rows))
        pad = self.tokenizer.pad_token_id
        fill = [[pad] * (width - len(r)) for r in rows]
        ids = [f + r if pad_left else r + f for f, r in zip(fill, rows, strict=True)]
        mask = [
            [0] * len(f) + [1] * len(r) if pad_left else [1] * len(r) + [0] * len(f)
            for f, r in zip(fill, rows, strict=True)
        ]
        return torch.tensor(ids), torch.tensor(mask)

    @torch.no_grad()
    def streams(self, texts: Sequence[str], size: int = 64) -> Iterator[tuple[Tensor, Tensor]]:
        """Residual stream after every block, ``[block, row, pos, width]``, and the attention mask, batch by batch."""
        for at in range(0, len(texts), size):
            ids, mask = self.batch([self.ids(t) for t in texts[at : at + size]])
            yield self._states(ids, mask), mask

    def _states(self, ids: Tensor, mask: Tensor) -> Tensor:
        caught: list[Tensor] = []
        with self.hooks(lambda _, out: caught.append(out)):
            self.model.model(input_ids=ids, attention_mask=mask, use_cache=False)
        return torch.stack(caught)

    @contextmanager
    def hooks(self, see: Callable[[int, Tensor], Tensor | None], blocks: Sequence[int] | None = None) -> Iterator[None]:
        """Call ``see(block, output)`` after each block; what it returns, if a tensor, replaces the output."""

        def hook_of(block: int) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor | None]:
            def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], out: Tensor) -> Tensor | None:
                return see(block, out)

            return hook

        chosen = range(self.blocks) if blocks is None else blocks
        handles = [self.layers[b].register_forward_hook(hook_of(b)) for b in chosen]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @torch.no_grad()
    def unembed(self, states: Tensor) -> Tensor:
        """Logits of a state through the final norm and the unembedding."""
        logits: Tensor = self.model.lm_head(self.model.model.norm(states))
        return logits

    @torch.no_grad()
    def write(self, prompts: Sequence[str], tokens: int, temperature: float = 0.0, seed: int = 0) -> list[str]:
        """Continuations without their prompts; temperature 0 is greedy."""
        torch.manual_seed(seed)
        greedy: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None}
        sampled: dict[str, Any] = {"do_sample": True, "temperature": temperature, "top_p": 1.0, "top_k": 0}
        out = []
        for at in range(0, len(prompts), GENERATION_ROWS):
            ids, mask = self.batch([self.ids(p) for p in prompts[at : at + GENERATION_ROWS]], pad_left=True)
            got = self.model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=tokens, **(sampled if temperature else greedy)
            )
            out += [self.tokenizer.decode(g[ids.shape[1] :], skip_special_tokens=True) for g in got]
        return out

    @torch.no_grad()
    def nll(self, prompts: Sequence[str], answers: Sequence[str]) -> float:
        """Mean nats per answer token given the prompt."""
        total, count = 0.0, 0
        for at in range(0, len(prompts), 64):
            heads = [self.ids(p) for p in prompts[at : at + 64]]
            tails = [self.bare_ids(a) for a in answers[at : at + 64]]
            ids, mask = self.batch([h + t for h, t in zip(heads, tails, strict=True)])
            logp = F.log_softmax(self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits, -1)
            for i, (head, tail) in enumerate(zip(heads, tails, strict=True)):
                rows = logp[i, len(head) - 1 : len(head) + len(tail) - 1]
                total -= float(rows.gather(-1, torch.tensor(tail, dtype=torch.long)[:, None]).sum())
                count += len(tail)
        return total / count
