"""What the legacy files are called: `output-MODEL-KIND.csv` and `output-MODEL.json`.

The rule of the file: a model's name is the last part of its id, with nothing in it that a file name cannot hold.
"""

import re
from datetime import datetime


def model_part(model: str) -> str:
    """The model's part of a file name: `meta-llama/Meta-Llama-3-8B` is `Meta-Llama-3-8B`."""
    tail = model.rstrip("/\\").replace("\\", "/").rpartition("/")[2]
    return re.sub(r"[^\w.+-]", "_", tail).lstrip(".") or "model"


def file_name(model: str, kind: str = "", ending: str = "csv") -> str:
    """The file of one kind; without a kind the document."""
    stem = f"output-{model_part(model)}"
    return f"{stem}-{kind}.{ending}" if kind else f"{stem}.json"


def stamp_name(now: datetime) -> str:
    """The file that says when a run began: `timestamp-YYYYMMDD-HHMM`."""
    return f"timestamp-{now:%Y%m%d-%H%M}"
