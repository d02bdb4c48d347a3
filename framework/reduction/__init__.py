"""How losses of tokens become one number.

A reduction gives every token its weight, in double precision, from the mask of the **whole** batch; the loss is
`(token_loss * weights).sum()`. Split over micro-batches and workers, rows with their weights add up to the same loss,
which a mean of means would not.
"""

from typing import Annotated

from pydantic import Field

from framework.reduction.fixed_length import FixedLength
from framework.reduction.sequence_mean import SequenceMean
from framework.reduction.token_mean import TokenMean

Reduction = Annotated[TokenMean | SequenceMean | FixedLength, Field(discriminator="kind")]

__all__ = ["FixedLength", "Reduction", "SequenceMean", "TokenMean"]
