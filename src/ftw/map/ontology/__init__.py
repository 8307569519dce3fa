"""Concept packs made from ontologies: WordNet and SUMO read, cut down to a tree of chosen roots and size, and judged.

The rule of the folder: the same sources and the same choice give the same bytes.
"""

from ftw.map.ontology.from_wordnet import wordnet_taxonomy
from ftw.map.ontology.listed import pack_of_list, read_list
from ftw.map.ontology.quality import Finding, Standards, examine
from ftw.map.ontology.records import pack_of
from ftw.map.ontology.sumo import sumo_taxonomy
from ftw.map.ontology.taxonomy import Chosen, Limits, Node, Taxonomy
from ftw.map.ontology.wordnet import WordNet, licence

__all__ = [
    "Chosen",
    "Finding",
    "Limits",
    "Node",
    "Standards",
    "Taxonomy",
    "WordNet",
    "examine",
    "licence",
    "pack_of",
    "pack_of_list",
    "read_list",
    "sumo_taxonomy",
    "wordnet_taxonomy",
]
