"""The sections of a report: each module makes one of an experiment, or None where it has nothing to say."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from framework.report.charts import Figure


class Section(NamedTuple):
    """What the template of this name shows."""

    name: str
    title: str
    figures: Sequence[Figure] = ()
    values: Mapping[str, Any] = {}  # what the template makes its tables of
