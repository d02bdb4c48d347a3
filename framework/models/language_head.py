"""Logits as a model makes them itself from its trunk's states: scales, soft caps, biases and whole heads included."""

import inspect
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from framework.models.huggingface import HfModel, HfTokenizer

LARGE_VOCABULARY = 4096


class LanguageHead:
    """What the model's own forward does after its trunk.

    The trunk is kept from running, and the states stand in as its answer, so that no family needs to be known here.
    Where nothing follows the trunk but one product with the output weight, `plain`, that product is all that is done.
    """

    def __init__(self, model: HfModel) -> None:
        self.model = model
        self.plain = self._is_plain()
        self.size = int(model.config.get_text_config(decoder=True).vocab_size)
        """Ids that have a logit, from 0 on."""

    def restrict(self, tokenizer: HfTokenizer) -> None:
        """Leave out ids beyond the tokenizer's: they would be sampled, and decode to nothing.

        Many vocabularies are padded to a round number. The policy is the model's distribution given that a token is
        one that there is, in sampling, in an update, and in KL alike; the weights stay as they are.
        """
        self.size = min(self.size, max(tokenizer.get_vocab().values()) + 1)

    def __call__(self, states: Float[Tensor, "*N H"]) -> Float[Tensor, "*N V"]:
        """Logits in float32, with gradients; memory grows with all of N x V."""
        logits = self.model.get_output_embeddings()(states) if self.plain else self._own(states)
        return logits[..., : self.size].float()

    def of_step(self, states: Float[Tensor, "B H"]) -> Float[Tensor, "B V"]:
        """The same for one token per row, for code that sees every weight whole."""
        if self.plain and self.size > LARGE_VOCABULARY:
            # A CPU is a third faster with the large factor first.
            return (self.model.get_output_embeddings().weight @ states.T).T[:, : self.size].float()
        return self(states)

    def _own(self, states: Float[Tensor, "*N H"]) -> Float[Tensor, "*N V"]:
        rows = states.reshape(1, -1, states.shape[-1])
        trunk = trunk_of(self.model)
        before = trunk.__dict__.get("forward")
        trunk.forward = lambda *_args, **_kwargs: _Answer(rows)
        try:
            logits = self.model(input_ids=torch.zeros(rows.shape[:2], dtype=torch.long, device=rows.device)).logits
        finally:
            del trunk.forward
            if before is not None:
                trunk.forward = before
        return logits.view(*states.shape[:-1], -1)

    def _is_plain(self) -> bool:
        """Whether there is no other weight than the output's, and on states of many sizes no other arithmetic."""
        out = self.model.get_output_embeddings()
        if type(out) is not nn.Linear or out.bias is not None:
            return False
        known = {id(weight) for weight in (*trunk_of(self.model).parameters(), out.weight)}
        if any(id(weight) not in known for weight in self.model.parameters()):
            return False
        sizes = torch.logspace(-2, 3, 6).unsqueeze(1)
        states = (torch.arange(6 * out.in_features).sin().view(6, -1) * sizes).to(out.weight)
        with torch.no_grad():
            own, product = self._own(states), out(states)
        return own.shape == product.shape and torch.allclose(own.to(product), product, rtol=1e-4)


class _Answer:
    """What a trunk gives back, as far as heads read it: the states, and None for whatever else is asked for."""

    def __init__(self, states: Float[Tensor, "1 N H"]) -> None:
        self.last_hidden_state = states

    def __getattr__(self, name: str) -> None:
        return None

    def __getitem__(self, index: int | slice) -> Float[Tensor, "1 N H"] | tuple[Tensor, ...]:
        return (self.last_hidden_state,)[index]


def trunk_of(model: HfModel) -> HfModel:
    """The module that a causal model's own forward asks for states: its base model, or that one's decoder."""
    base = model.base_model if model.base_model is not model else getattr(model, "model", model)
    return getattr(base, "decoder", base)


def understood(module: HfModel, **settings: Any) -> dict[str, Any]:
    """Those of the settings that the module's forward names: families differ in whether they are told positions."""
    names = inspect.signature(module.forward).parameters
    return {name: value for name, value in settings.items() if name in names}
