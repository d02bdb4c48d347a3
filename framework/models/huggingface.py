"""Names for Hugging Face models and tokenizers in annotations."""

from typing import Any, TypeAlias

HfModel: TypeAlias = Any
"""A transformers `PreTrainedModel`. Importing the class takes seconds, and `nn.Module` hides its attributes."""

HfTokenizer: TypeAlias = Any
"""A transformers `PreTrainedTokenizerBase`."""
