"""Melds: new concepts and changes to old ones, held against a pack's rules, weighed, and applied to it."""

from ftw.map.meld.apply import Melded, apply, write
from ftw.map.meld.diff import PackDiff, diff_packs
from ftw.map.meld.impact import Impact, PendingTraining, impact_of
from ftw.map.meld.policy import Policy, Protection, policy_of
from ftw.map.meld.protection import Assessment, assess
from ftw.map.meld.request import MeldRequest, meld_of, read_meld
from ftw.map.meld.validate import Finding, Verdict, validate

__all__ = [
    "Assessment",
    "Finding",
    "Impact",
    "MeldRequest",
    "Melded",
    "PackDiff",
    "PendingTraining",
    "Policy",
    "Protection",
    "Verdict",
    "apply",
    "assess",
    "diff_packs",
    "impact_of",
    "meld_of",
    "policy_of",
    "read_meld",
    "validate",
    "write",
]
