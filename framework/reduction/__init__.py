"""How losses of tokens become one number.

A reduction gives every token its weight, from the mask of the **whole** batch; the loss is
`(token_loss * weights).sum()`. Rows and weights may then be split over micro-batches and workers: the parts
add up to the same loss, which a mean of means would not.
"""

from typing import Annotated

from pydantic import Field

from framework.reduction.fixed_length import FixedLength
from framework.reduction.sequence_mean import SequenceMean
from framework.reduction.token_mean import TokenMean

Reduction = Annotated[TokenMean | SequenceMean | FixedLength, Field(discriminator="kind")]

__all__ = ["FixedLength", "Reduction", "SequenceMean", "TokenMean"]
