"""Run by a test in a process of its own, with Triton's interpreter: the kernel against the plain form, on a CPU."""

import torch
import triton
import triton.language as tl

from ftw.poc import inputs_triton
from ftw.poc.inputs import fill_with_torch
from ftw.poc.inputs_triton import fill_with_triton, hash_word
from ftw.poc.seeds import mix

SEEDS = [0, 1, 0x0D11E7C0, 0x80000000, 0xFFFFFFFF]


@triton.jit
def words_kernel(out, seed, n: tl.constexpr):
    index = tl.arange(0, n)
    tl.store(out + index, hash_word(index.to(tl.uint32), seed.to(tl.uint32)).to(tl.int64))


def main() -> None:
    for seed in SEEDS:
        words = torch.zeros(256, dtype=torch.int64)
        words_kernel[(1,)](words, seed, n=256)
        assert torch.equal(words & 0xFFFFFFFF, mix(torch.arange(256), torch.tensor(seed))), f"words of {seed}"
    for count in (1, 2, 7, 2 * inputs_triton.BLOCK, 2 * inputs_triton.BLOCK + 5):
        exact, got = torch.empty(len(SEEDS), count), torch.full((len(SEEDS), count), 9.0)
        fill_with_torch(exact, SEEDS)
        fill_with_triton(got, SEEDS)
        assert float((got - exact).abs().max()) < 1e-6, f"{count} normals"
    for dtype, step in ((torch.bfloat16, 2**-7), (torch.float16, 2**-10)):  # the interpreter cuts where a GPU rounds
        half = torch.empty(len(SEEDS), 99, dtype=dtype)
        exact = torch.empty(len(SEEDS), 99)
        fill_with_triton(half, SEEDS)
        fill_with_torch(exact, SEEDS)
        assert torch.allclose(half.float(), exact, rtol=step, atol=1e-6), f"{dtype}"
    wide = torch.full((len(SEEDS), 40), 9.0)
    part = wide[:, 8:29]
    exact = torch.empty(len(SEEDS), 21)
    fill_with_triton(part, SEEDS)
    fill_with_torch(exact, SEEDS)
    assert float((part - exact).abs().max()) < 1e-6, "a slice of wider rows"
    beyond = torch.cat([wide[:, :8], wide[:, 29:]], dim=1)
    assert bool((beyond == 9.0).all()), "beyond the slice"


if __name__ == "__main__":
    main()
