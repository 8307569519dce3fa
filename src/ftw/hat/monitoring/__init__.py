"""The monitor: turns each step of a generation into a reading. What is read is decided by a deployment manifest."""

from ftw.hat.monitoring.comparability import Comparison, Loaded, comparable, fingerprint
from ftw.hat.monitoring.hierarchy import Decision, Deployment, Scope
from ftw.hat.monitoring.introspection import BranchReading, Collapse, Envelope, Expansion, Introspection
from ftw.hat.monitoring.manifest import DeploymentManifest, presets, read_manifest
from ftw.hat.monitoring.monitor import Bank, Monitor, Warms
from ftw.hat.monitoring.records import Combined, Reading, Score, SimplexScore
from ftw.hat.monitoring.resident import ResidentBank
from ftw.hat.monitoring.simplex import combined, deviation, trend
from ftw.hat.monitoring.timeline import Line, Timeline, timeline

__all__ = [
    "Bank",
    "BranchReading",
    "Collapse",
    "Combined",
    "Comparison",
    "Decision",
    "Deployment",
    "DeploymentManifest",
    "Envelope",
    "Expansion",
    "Introspection",
    "Line",
    "Loaded",
    "Monitor",
    "Reading",
    "ResidentBank",
    "Scope",
    "Score",
    "SimplexScore",
    "Timeline",
    "Warms",
    "combined",
    "comparable",
    "deviation",
    "fingerprint",
    "presets",
    "read_manifest",
    "timeline",
    "trend",
]
