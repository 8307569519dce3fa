"""The compliance report of a pack on its model: locality, transduction, calibration, efficiency, control authority."""

from ftw.map.training.compliance.measure import measure_compliance
from ftw.map.training.compliance.records import (
    COMPLIANCE,
    ComplianceReport,
    Figure,
    Property,
    read_compliance,
    write_compliance,
)

__all__ = [
    "COMPLIANCE",
    "ComplianceReport",
    "Figure",
    "Property",
    "measure_compliance",
    "read_compliance",
    "write_compliance",
]
