"""HUSH, the safety harnesses (layer 5).

The profile, the universal and the chosen harness, and the guard that can really stop will live here.
"""
