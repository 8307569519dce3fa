"""The Substrate (FTW layer 1) is the model itself: stable addresses, reading, editing, running.

Every other room stands on this one and it imports none of them. A file enters only when two rooms need it.
"""
