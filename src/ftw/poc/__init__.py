"""Proof of compute: a node shows which model it runs by vectors that only that model's forward pass yields.

The mathematics (profiles and seeds, inputs, reflections after every block, readout, encoding, verdict), the service
that makes and judges them (rounds, requests, journal, callbacks), the evidence (commitments, proofs, samples), and what
the numbers are worth (radius, calibration, votes). `hello` is a first proof without a network.
"""
