"""Proof of compute: a node shows which model it runs by vectors that only that model's forward pass yields.

Here is the mathematics: profiles and seeds, inputs made on the device, reflections after every block, the readout, the
encoding, the verdict; and `hello`, a first proof without a network. The service, its journal, callbacks and commitments
will stand on it.
"""
