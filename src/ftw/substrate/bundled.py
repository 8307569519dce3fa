"""What comes with the package: the folder of the reference model, and the parts of `tiny`.

The rule of the file: no network, no files but the package's own, and the global random state stays untouched.
"""

from importlib.resources import files
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from ftw.substrate.errors import ModelNotFound

BOS, EOS, PAD = 256, 257, 258
CHAT = (
    "{% for message in messages %}[{{ message['role'] }}]{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def reference_dir() -> Path:
    """The folder of the bundled reference model. Raises ModelNotFound where the installation lacks it."""
    folder = Path(str(files("ftw") / "bundled" / "reference-model"))
    if not folder.is_dir():
        raise ModelNotFound(f"the bundled model is not at {folder}: reinstall ftw-transparency")
    return folder


def tiny_net(seed: int = 0) -> PreTrainedModel:
    """A random Llama of 4 blocks, d_model 32, 259 tokens, 256 positions, fp32 on the CPU, the same for the same seed.

    Weights are larger than a trained model's and norms differ from one, so that a mistake anywhere shows.
    """
    config = LlamaConfig(
        vocab_size=259,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.2,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = LlamaForCausalLM(config)
        with torch.no_grad():
            for name, weight in net.named_parameters():
                if name.endswith("norm.weight"):
                    weight.uniform_(0.5, 1.5)
    net.requires_grad_(requires_grad=False)
    result: PreTrainedModel = net.train(mode=False)
    return result


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A token per byte (ids 0..255), then <s>, </s>, <pad>. A text begins with <s>. Has a chat template."""
    alphabet = {char: byte for byte, char in _byte_chars().items()}
    core = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["<s>", "</s>", "<pad>"])
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="<pad>", clean_up_tokenization_spaces=False
    )
    tokenizer.chat_template = CHAT
    return tokenizer


def _byte_chars() -> dict[int, str]:
    """GPT-2's printable stand-in for each byte, which the ByteLevel pre-tokenizer and decoder speak."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {**{byte: chr(byte) for byte in shown}, **{byte: chr(256 + i) for i, byte in enumerate(hidden)}}
