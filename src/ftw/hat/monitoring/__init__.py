"""The monitor: turns each step of a generation into a reading."""

from ftw.hat.monitoring.monitor import Monitor
from ftw.hat.monitoring.records import Reading, Score

__all__ = ["Monitor", "Reading", "Score"]
