"""Proof of compute: a node shows which model it runs by vectors that only that model's forward pass yields.

Numerics and the offline self-check are here; the service, the journal, callbacks and verification will live here.
"""
