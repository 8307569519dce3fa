"""Audits: whether what a sweep found is the model's, or the lens's, the norm's, the temperature's, the machine's.

`of` makes every audit of a table; `provenance.capture` says what the run was made with.

The rule of the folder: an audit never changes a number of the table. It thresholds, and says what to read with care.
"""

from ftw.sweep.audits.audit import Audit, of
from ftw.sweep.audits.finding import Finding, Severity
from ftw.sweep.audits.guidance import Guidance

__all__ = ["Audit", "Finding", "Guidance", "Severity", "of"]
