"""A reward model that someone published for sequence classification, as one member of an ensemble."""

from collections.abc import Sequence
from pathlib import Path

from jaxtyping import Bool, Float, Int
from torch import Tensor

from framework.errors import UserError
from framework.models.huggingface import HfModel, HfTokenizer
from framework.models.reward_heads import Member
from framework.models.sequence_classifier import load_classifier, logits, readable_tokens, tokenize


class PublishedReward(Member):
    """One head: the logit of a model with one label, or label 1 less label 0 of a model with two."""

    num_heads = 1
    causal = False
    """Its tokenizer and template close a text themselves, whichever way it attends: no end token is added."""

    def __init__(self, model: HfModel, tokenizer: HfTokenizer) -> None:
        super().__init__()
        self.model: HfModel = model
        self.tokenizer = tokenizer
        self.max_tokens = readable_tokens(model, tokenizer)
        """Tokens of a text that it can read."""

    @classmethod
    def from_published(cls, path: str, field: str = "fit_reward.ensemble.published") -> "PublishedReward":
        """A hub id or folder, in float32; `field` is the setting that errors name.

        Raises:
            UserError: nothing to load, a head that was never trained, a tokenizer of another model, or
                neither one label nor two, so that the reward is not known.
        """
        model, tokenizer = load_classifier(path, "float32", field)
        if model.config.num_labels not in (1, 2):
            names = ", ".join(model.config.id2label.values())
            raise UserError(
                f"{field}={path}: a reward model has 1 label, or 2 (bad, good), and this one has "
                f"{model.config.num_labels} ({names}); name another, or take it as gold with gold.label"
            )
        return cls(model.eval(), tokenizer)

    def tokenize(
        self, prompts: Sequence[str], responses: Sequence[str], ended: Sequence[bool] | None = None
    ) -> tuple[list[list[int]], int]:
        """Token ids as the model was trained to read them, over-long texts cut at the start; and how many were."""
        return tokenize(self.tokenizer, prompts, responses, self.max_tokens, ended)

    def forward(self, input_ids: Int[Tensor, "B S"], mask: Bool[Tensor, "B S"]) -> Float[Tensor, "1 B"]:
        """The published score of right-padded texts, before calibration.

        A difference of two logits is the log-odds of label 1.
        """
        scores = logits(self.model, input_ids, mask)
        one = scores[:, 0] if scores.shape[1] == 1 else scores[:, 1] - scores[:, 0]
        return one.unsqueeze(0)

    def save(self, folder: Path) -> None:
        """Write model and tokenizer in plain Hugging Face layout, so that they load as what they were."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    @classmethod
    def load(cls, folder: str | Path) -> "PublishedReward":
        """Read what `save` wrote.

        Raises:
            UserError: as `from_published`.
        """
        return cls.from_published(str(folder), "reward model")
