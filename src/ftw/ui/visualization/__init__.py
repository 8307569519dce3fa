"""Draws what was found in a terminal: words with the concepts that were read beside them, tracks, tables, bars.

Quiet is normal, nothing is bare, the claim comes first. Everything here takes plain records and gives rich renderables;
no model and no pack is needed to draw. Pages and reports will live here too.
"""
