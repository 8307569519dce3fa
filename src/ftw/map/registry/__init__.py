"""Packs on disk: concept packs and lens packs, read, validated and written; the registry and hub will live here."""
