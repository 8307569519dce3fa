"""BE, the Bounded Experiencer (layer 4).

The workspace, the motive core, experience and the experience database will live here.
"""
