"""What a critic's values are trained on: a loss per token, still to be reduced.

With a second member this becomes a union, `Annotated[SquaredError | ..., Field(discriminator="kind")]`.
"""

from framework.critic.squared_error import SquaredError

Critic = SquaredError

__all__ = ["Critic", "SquaredError"]
