"""A Hugging Face sequence classifier, or reward model, as gold."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from jaxtyping import Float
from pydantic import Field

from framework.component import Component
from framework.errors import RunError, UserError
from framework.models.huggingface import HfModel
from framework.tensor import Tensor
from framework.types import GoldScorer, Scores


class Classifier(Component):
    """Judges text by a logit, or a difference of two, of a sequence-classification model."""

    kind: Literal["classifier"] = "classifier"
    worlds: ClassVar[tuple[str, ...] | None] = None
    """Kinds of the worlds that it can judge; None: any."""
    path: str
    """Hub id or folder. ${VARIABLE} is expanded."""
    label: int | str = 0
    """The logit that is the score, by number or by the model's own label name."""
    against: int | str | None = None
    """A logit to subtract, such as that of the opposite label. None: subtract nothing."""
    max_length: int | None = Field(default=None, ge=8)
    """Tokens of a text that are read; the end is kept. None: as many as the model can."""
    batch_size: int = Field(default=16, ge=1)
    """Texts per forward pass."""
    max_cut_share: float = Field(default=0.1, ge=0, le=1)
    """Share of the texts of one call that may be cut; above it the run stops."""
    dtype: Literal["auto", "float32", "bfloat16"] = "float32"
    """Of weights and arithmetic; auto: as the model is stored."""

    def build(self, device: str) -> GoldScorer:
        """A scorer with its model on `device`.

        Raises:
            UserError: nothing to load there, a model whose head was never trained, a tokenizer of another model,
                or no such label.
        """
        return ClassifierScorer(self, device)


class ClassifierScorer:
    """Holds the model and its own tokenizer."""

    def __init__(self, settings: Classifier, device: str) -> None:
        from framework.models.published import load_classifier, readable_tokens

        self.settings, self.device = settings, device
        self.model, self.tokenizer = load_classifier(settings.path, settings.dtype, "gold.path")
        self.model.to(device).eval()
        self.label = _label_number(settings.label, self.model, settings.path, "label")
        self.against = None
        if settings.against is not None:
            self.against = _label_number(settings.against, self.model, settings.path, "against")
        readable = readable_tokens(self.model, self.tokenizer)
        self.max_length = min(settings.max_length or readable, readable)

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
        """One logit (or difference of two) per text; the start of an over-long text is cut.

        Raises:
            RunError: too many texts were cut, or a score is not finite.
        """
        import torch

        from framework.models.encoding import tokenize_texts

        rows, num_cut = tokenize_texts(self.tokenizer, prompts, responses, self.max_length)
        if num_cut > self.settings.max_cut_share * len(rows):
            raise RunError(
                f"gold: {num_cut} of {len(rows)} texts have more than {self.max_length} tokens, over "
                f"gold.max_cut_share={self.settings.max_cut_share}; raise gold.max_length or cut the texts"
            )
        # Texts of like length share a batch, so that little is spent on padding.
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        values = torch.empty(len(rows), dtype=torch.float32)
        for start in range(0, len(rows), self.settings.batch_size):
            index = order[start : start + self.settings.batch_size]
            values[torch.tensor(index)] = self._forward([rows[i] for i in index])
        if not bool(values.isfinite().all()):
            broken = int((~values.isfinite()).sum())
            raise RunError(
                f"gold: {broken} of {len(rows)} scores of {self.settings.path} are not finite; try gold.dtype=float32"
            )
        return Scores(values, num_cut)

    def _forward(self, rows: Sequence[Sequence[int]]) -> Float[Tensor, "B"]:
        """Scores of one batch."""
        import torch

        from framework.models.encoding import padded
        from framework.models.published import logits

        ids, mask = padded(rows)
        with torch.inference_mode():
            scores = logits(self.model, ids.to(self.device), mask.to(self.device))
            score = scores[:, self.label]
            return (score if self.against is None else score - scores[:, self.against]).cpu()


def _label_number(label: int | str, model: HfModel, path: str, field: str) -> int:
    names: dict[int, str] = model.config.id2label
    for number, name in names.items():
        if label in (number, name):
            return int(number)
    known = ", ".join(f"{number} ({name})" for number, name in names.items())
    raise UserError(f"gold.{field}={label!r}: {path} has the labels {known}")
