"""Where a reward model's features lay in training, and how far from there a text lies.

A reward model knows little of texts unlike those it was fitted to, and a policy that gains reward moves towards them.
Source: Lee et al. 2018 (arXiv 1807.03888), section 2.1, with one class; the covariance is shrunk as of Ledoit and Wolf
2004 (10.1016/S0047-259X(03)00096-4), because there may be fewer texts than features.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from framework.errors import UserError
from framework.models.reward_heads import read_tensors

CLOUD_FILE = "cloud.safetensors"


@dataclass(frozen=True, eq=False)
class FeatureCloud:
    """Mean and shrunk covariance of the training texts' features, for each encoding that a member makes."""

    mean: Float[Tensor, "E H"]
    whitening: Float[Tensor, "E H H"]
    """Right factor under which the r.m.s. length of a training text's deviation from the mean is 1."""

    @classmethod
    def fit(cls, features: Float[Tensor, "E N H"]) -> "FeatureCloud | None":
        """The cloud of these texts' features; None where an encoding makes all texts alike."""
        known = [pair for encoding in features.cpu() if (pair := _fit(encoding.double().numpy()))]
        if len(known) < len(features):
            return None
        return cls(*(torch.from_numpy(np.stack(parts)).float() for parts in zip(*known, strict=True)))

    def distances(self, features: Float[Tensor, "E B H"]) -> Float[Tensor, "E B"]:
        """Mahalanobis distance of each text, in r.m.s. distances of the training texts; float32 on the CPU."""
        return ((features.float() - self.mean[:, None]) @ self.whitening).norm(dim=-1).cpu()

    def to(self, device: str) -> "FeatureCloud":
        return FeatureCloud(self.mean.to(device), self.whitening.to(device))

    def save(self, folder: Path) -> None:
        """Write the cloud beside its member."""
        save_file({name: value.cpu().contiguous() for name, value in vars(self).items()}, folder / CLOUD_FILE)

    @classmethod
    def load(cls, folder: Path) -> "FeatureCloud | None":
        """The cloud beside a member; None for one that was saved without, a `UserError` where the file is damaged."""
        path = folder / CLOUD_FILE
        if not path.is_file():
            return None
        tensors = read_tensors(path, ("mean", "whitening"))
        mean, whitening = tensors["mean"], tensors["whitening"]
        if mean.ndim != 2 or whitening.shape != (*mean.shape, mean.shape[-1]):
            raise UserError(f"{path} is damaged: its tensors do not fit together; fit the model again")
        return cls(mean, whitening)


def _fit(features: Float[np.ndarray, "N H"]) -> tuple[Float[np.ndarray, "H"], Float[np.ndarray, "H H"]] | None:
    from sklearn.covariance import ledoit_wolf  # slow to import, and a run that only scores needs none

    mean = features.mean(axis=0)
    centred = features - mean
    if np.square(centred).sum() <= 1e-12 * np.square(features).sum():
        return None
    variances, axes = np.linalg.eigh(ledoit_wolf(centred, assume_centered=True)[0])
    # A direction that never varied must not make the distance infinite.
    factor = axes / np.sqrt(np.maximum(variances, 1e-4 * variances.mean()))
    return mean, factor / np.sqrt(np.square(centred @ factor).sum(axis=1).mean())
