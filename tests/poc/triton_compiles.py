"""Run by a test in a process of its own: the kernel compiles for CUDA in every dtype, with exact functions."""

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from ftw.poc.inputs_triton import BLOCK, fill_kernel

SIGNATURE = {"seeds": "*i64", "count": "i32", "pairs": "i32", "stride": "i32", "block": "constexpr"}


def main() -> None:
    for dtype in ("fp32", "bf16", "fp16"):
        source = ASTSource(fill_kernel, {"out": f"*{dtype}", **SIGNATURE}, {"block": BLOCK})
        code = triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"]
        assert "sin.approx" not in code
        assert "lg2.approx" not in code


if __name__ == "__main__":
    main()
