"""Measurements of speed: `python -m benchmarks`. Every figure has two sides, measured in one run."""
