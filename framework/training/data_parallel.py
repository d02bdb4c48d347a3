"""Fitting one module in several processes, each on its share of every batch.

All processes hold the same weights and take the same steps. A loss is worked out on the scores of the whole
batch in each process, so that a loss which is no sum over pairs (a correlation, say) is the same too.
"""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from framework.training.torch_engine import TorchEngine


@dataclass(frozen=True)
class Shard:
    """This process's place among those that fit together; one process alone by default."""

    rank: int = 0
    size: int = 1

    def take(self, index: list[int]) -> list[int]:
        """This process's contiguous share of a batch, whose size must be a multiple of `size`."""
        assert len(index) % self.size == 0, (len(index), self.size)
        each = len(index) // self.size
        return index[self.rank * each : (self.rank + 1) * each]

    def gather(self, scores: Float[Tensor, "K b"]) -> Float[Tensor, "K B"]:
        """The whole batch's scores from every process's share; only the own share carries gradients."""
        if self.size == 1:
            return scores
        parts = [torch.empty_like(scores) for _ in range(self.size)]
        dist.all_gather(parts, scores.detach().contiguous())
        # The engine averages gradients over processes, and each has only its own share's: times `size`.
        parts[self.rank] = scores + (self.size - 1) * (scores - scores.detach())
        return torch.cat(parts, dim=1)

    def wait(self) -> None:
        """Until every process has come here."""
        if self.size > 1:
            dist.barrier()

    @property
    def leads(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0


class DataParallelEngine(TorchEngine):
    """Averages gradients over the processes of the default group before each step."""

    def step(self) -> float:
        present = [p.grad for p in self.parameters if p.grad is not None]
        flat = torch.cat([grad.reshape(-1) for grad in present])
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        for grad, mean in zip(present, flat.split([g.numel() for g in present]), strict=True):
            grad.copy_(mean.view_as(grad))
        return super().step()
