"""Packs on disk and elsewhere: concept packs and lens packs, read and validated, pulled, pushed, pinned and forked."""

from ftw.map.registry.calls import (
    fork,
    here,
    list_concept_packs,
    list_lens_packs,
    load_concept_pack,
    load_lens_pack,
    pull_concept_pack,
    pull_lens_pack,
    push_concept_pack,
    push_lens_pack,
    status,
    verify,
)
from ftw.map.registry.ground import Ground
from ftw.map.registry.opened import OpenedLens
from ftw.map.registry.records import Listed, Pulled, Pushed, Status
from ftw.map.registry.registry import Registry

__all__ = [
    "Ground",
    "Listed",
    "OpenedLens",
    "Pulled",
    "Pushed",
    "Registry",
    "Status",
    "fork",
    "here",
    "list_concept_packs",
    "list_lens_packs",
    "load_concept_pack",
    "load_lens_pack",
    "pull_concept_pack",
    "pull_lens_pack",
    "push_concept_pack",
    "push_lens_pack",
    "status",
    "verify",
]
