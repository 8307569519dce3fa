"""Shared fixtures. Tests never reach the network: the hub is offline for the whole run."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
