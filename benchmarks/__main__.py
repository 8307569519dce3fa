"""Runs benchmarks: `python -m benchmarks [NAME …] [--device cpu|cuda] [--append] [--json] …` (see `--help`)."""

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.harness import HEADER, Context, Figure, append, records, table

HERE = Path(__file__).parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, and with --append write down. Returns 0 even when a goal is missed: people judge figures."""
    known = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=f"Benchmarks: {', '.join(known)}.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="which to run (default: all)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument(
        "--append", action="store_true", help="add dated rows to docs/benchmarks.md and a JSON lines file"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    parser.add_argument("--rounds", type=int, default=9, help="how often each side runs (default: 9)")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: processor time (default: wall)")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.names) - set(known))
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}: there are {', '.join(known)}")
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("there is no CUDA device here: use --device cpu")
    if options.rounds < 1:
        parser.error("--rounds is at least 1")
    context = Context(options.device, options.rounds, options.clock)
    figures: list[Figure] = []
    for name in options.names or known:
        print(f"{name} …", file=sys.stderr, flush=True)
        figures += importlib.import_module(f"benchmarks.bench_{name}").run(context)
    if options.json:
        print(json.dumps(records(figures, context), indent=2))
    else:
        print(HEADER)
        print(table(figures, context))
    if options.append:
        append(figures, context, HERE.parent)
    return 0


if __name__ == "__main__":
    sys.exit(main())
