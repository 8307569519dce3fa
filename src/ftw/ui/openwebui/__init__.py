"""The Open WebUI filter and action will live here."""
