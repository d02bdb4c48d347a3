"""A component is its own configuration.

An idea (an objective, an aggregation, a KL controller, a gold scorer ...) is one frozen pydantic
model: its fields are its settings, its `kind` is its name in YAML, and its methods are the idea.
Members of one family stand in an explicit discriminated union in the family's `__init__.py`; there
is no registry to keep in step across processes.
"""

from pydantic import BaseModel, ConfigDict


class Component(BaseModel):
    """Base of every configurable part: immutable, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)
