"""Ontology sources (WordNet); melds, which change an ontology under rules, will live here."""
