"""Grafts will live here: buds (reversible) and scions (low-rank adapters), regions and the substrate manifest."""
