"""What each verb of the command line does: one file per verb, free to import what is heavy.

`ftw.ui.cli` parses and checks the request and calls `run` here; nothing in this room knows of the command line.
"""
