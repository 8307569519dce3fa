"""Draws what was found, in a terminal and on a page: words with their concepts beside them, tracks, tables, charts.

Quiet is normal, nothing is bare, the claim comes first. Everything here takes plain records and gives rich renderables
or HTML; no model and no pack is needed to draw.
"""
