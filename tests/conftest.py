"""Shared fixtures. Tests never reach the network: the hub is offline for the whole run."""

import os
import tempfile

from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["FTW_PACKS_DIR"] = tempfile.mkdtemp(prefix="ftw-no-packs-")
settings.register_profile("ftw", deadline=None, derandomize=True)  # a busy machine is no defect; a failure comes again
settings.load_profile("ftw")
