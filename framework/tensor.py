"""`Tensor` for annotations, without the second and a half that importing torch takes: a configuration is read without it."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING or "torch" in sys.modules:
    from torch import Tensor
else:

    class Tensor:
        """Stands for `torch.Tensor` where torch has not been imported; only tests look at annotations, and they import it first."""


__all__ = ["Tensor"]
