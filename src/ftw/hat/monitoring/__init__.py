"""The monitor: turns each step of a generation into a reading."""
