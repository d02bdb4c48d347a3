"""A name for Hugging Face models in annotations."""

from typing import Any, TypeAlias

HfModel: TypeAlias = Any
"""A transformers `PreTrainedModel`. Importing the class takes seconds, and `nn.Module` hides its attributes."""
