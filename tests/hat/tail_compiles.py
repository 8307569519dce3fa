"""Run by a test in a process of its own: the kernel compiles for CUDA in every dtype of a bank."""

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from ftw.hat.classifiers.forms.tail_triton import ROWS, tail_kernel

FLOATS = dict.fromkeys(("mean", "scale", "sums", "b1", "b2", "w3", "b3", "out"), "*fp32")
NUMBERS = dict.fromkeys(("rows", "stride", "lenses", "units"), "i32")
SIZES = {"hidden": 128, "wide": 64, "block": ROWS}


def main() -> None:
    for dtype in ("fp32", "bf16"):
        kinds = {**FLOATS, **NUMBERS, "product": f"*{dtype}", "w2": f"*{dtype}", **dict.fromkeys(SIZES, "constexpr")}
        source = ASTSource(tail_kernel, kinds, SIZES)
        code = triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"]
        assert "tf32" not in code


if __name__ == "__main__":
    main()
