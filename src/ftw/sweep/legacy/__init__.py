"""The legacy format: the CSV and JSON files of the published suite, made from a run's table and document.

`export` writes them (47 and 57 columns by default, 50 and 85 on demand), `failed` writes the document of a run that did
not finish, `read_everywhere` reads the first fact at every position where the run did not.

The rule of the folder: every number comes from the table, every milestone and audit from the document. Nothing is
computed twice.
"""

from ftw.sweep.legacy.columns import Schema
from ftw.sweep.legacy.everywhere import Everywhere, read_everywhere
from ftw.sweep.legacy.write import export, failed

__all__ = ["Everywhere", "Schema", "export", "failed", "read_everywhere"]
