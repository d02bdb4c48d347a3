"""One encoder, K low-rank adapters: between heads alone and whole models."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from framework.component import Component
from framework.ensembles.recipe import Part

if TYPE_CHECKING:
    from framework.models.reward_heads import Member
    from framework.training.reward_fitter import RewardFitter


class Lora(Component):
    """K adapters with a head each (Zhang et al., arXiv 2401.16635).

    As there, one part of the pairs first fits the whole encoder with one head, and adapters are fitted to
    the rest: adapters on an encoder that never saw a preference fail.
    """

    kind: Literal["lora"] = "lora"
    members: int = Field(default=5, ge=1, le=1000)
    """K."""
    rank: int = Field(default=8, ge=1)
    """Of each adapter's two factors."""
    alpha: int = Field(default=16, ge=1)
    """An adapter's change to a weight is multiplied by alpha / rank."""
    first_share: float = Field(default=0.5, gt=0, lt=1)
    """Share of the pairs that the encoder is fitted to; adapters get the rest."""
    lr_factor: float = Field(default=1.0, gt=0)
    """Of the adapters' learning rate: low-rank factors usually bear a higher one."""

    @property
    def num_heads(self) -> int:
        return self.members

    def parts(self) -> dict[str, Part]:
        """The fits of this recipe, by name."""
        rest = {
            f"adapter_{k}": Part(order=k + 1, lr_factor=self.lr_factor, pairs=(self.first_share, 1.0))
            for k in range(self.members)
        }
        return {"encoder": Part(pairs=(0.0, self.first_share))} | rest

    def fit(self, fitter: "RewardFitter") -> "list[Member]":
        """The fitted members: one, with K heads."""
        from framework.models.lora_heads import LoraHeads

        base = fitter.fit(fitter.start(member=0), "encoder")
        fitter.seed_member(1)
        ensemble = LoraHeads(base.encoder, self.members, self.rank, self.alpha).to(base.heads.weight.device)
        for k in range(self.members):
            fitter.fit(ensemble.member(k), f"adapter_{k}")
        return [ensemble]
