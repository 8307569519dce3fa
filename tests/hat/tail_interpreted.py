"""Run by a test in a process of its own, with Triton's interpreter: the kernel against the plain form, on a CPU."""

import torch

from ftw.hat.classifiers.forms.tail import Tail, statistics, tail_with_torch
from ftw.hat.classifiers.forms.tail_triton import tail_with_triton

DTYPES = ((torch.float32, 1e-4), (torch.bfloat16, 5e-2))


def main() -> None:
    rng = torch.Generator().manual_seed(0)
    for lenses, units, rows in ((2, 64, 1), (1, 3, 17)):
        for dtype, error in DTYPES:
            h = 40 * torch.randn(rows, 48, generator=rng) + 9
            w1 = torch.randn(lenses * 128, 48, generator=rng) / 7
            tail = Tail(
                sums=w1.sum(1),
                b1=torch.randn(lenses * 128, generator=rng),
                w2=(torch.randn(lenses, 128, units, generator=rng) / 11).to(dtype),
                b2=torch.randn(lenses, units, generator=rng),
                w3=torch.randn(lenses, units, generator=rng),
                b3=torch.randn(lenses, generator=rng),
            )
            about = statistics(h)
            wanted = tail_with_torch(h @ w1.T, about, tail)
            got = tail_with_triton(h @ w1.T, about, tail)
            assert got.shape == (rows, lenses)
            assert float((got - wanted).abs().max()) < error * max(1, float(wanted.abs().max())), (lenses, rows, dtype)
    h[0, 3] = float("nan")
    assert bool(tail_with_triton(h @ w1.T, statistics(h), tail)[0].isnan().all())


if __name__ == "__main__":
    main()
