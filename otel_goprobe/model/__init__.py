"""The frozen values that the arrows of the design carry, from a process in sight to columns of spans.

    discovery -> Target;  gobinary + probes -> Plan;  kernel -> RecordBatch;  spans -> SpanColumns;  export -> bytes

They hold data and derive nothing that needs a file, a process or the kernel.
"""

from otel_goprobe.model.programs import (
    BuildInfo,
    Cost,
    GoProcess,
    Module,
    Plan,
    ProbePlan,
    ProgramKind,
    Site,
    Skipped,
    Target,
    Unit,
    UnitProgram,
)
from otel_goprobe.model.spans import (
    AttributeValue,
    Booleans,
    Column,
    Event,
    Exemplar,
    HistogramPoint,
    Integers,
    Links,
    Metric,
    Occurrences,
    OwnSpan,
    RecordBatch,
    SpanColumns,
    SpanKind,
    StringLists,
    Strings,
    SumPoint,
)

__all__ = [
    "AttributeValue",
    "Booleans",
    "BuildInfo",
    "Column",
    "Cost",
    "Event",
    "Exemplar",
    "GoProcess",
    "HistogramPoint",
    "Integers",
    "Links",
    "Metric",
    "Module",
    "Occurrences",
    "OwnSpan",
    "Plan",
    "ProbePlan",
    "ProgramKind",
    "RecordBatch",
    "Site",
    "Skipped",
    "SpanColumns",
    "SpanKind",
    "StringLists",
    "Strings",
    "SumPoint",
    "Target",
    "Unit",
    "UnitProgram",
]
