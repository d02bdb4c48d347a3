"""A Hugging Face sequence classifier, or reward model, as gold."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from framework.component import Component
from framework.errors import RunError, UserError
from framework.types import GoldScorer, Scores


class Classifier(Component):
    """Judges text by a logit, or a difference of two, of a sequence-classification model."""

    kind: Literal["classifier"] = "classifier"
    worlds: ClassVar[tuple[str, ...] | None] = None
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
            UserError: nothing to load there, a head that was never trained, another model's tokenizer, no such label.
        """
        return ClassifierScorer(self, device)


class ClassifierScorer:
    """Holds the model and its own tokenizer."""

    def __init__(self, settings: Classifier, device: str) -> None:
        from framework.models.published import load_classifier, readable_tokens

        self.settings, self.device = settings, device
        self.model, self.tokenizer = load_classifier(settings.path, settings.dtype, "gold.path")
        self.model.to(device).eval()
        self.label, self.against = (self._number(field) for field in ("label", "against"))
        readable = readable_tokens(self.model, self.tokenizer)
        self.max_length = min(settings.max_length or readable, readable)

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
        """One logit (or difference of two) per text. Raises RunError: too many were cut, or a score is not finite."""
        import torch

        from framework.models.encoding import padded, tokenize_texts
        from framework.models.published import logits

        rows, num_cut = tokenize_texts(self.tokenizer, prompts, responses, self.max_length)
        if num_cut > self.settings.max_cut_share * len(rows):
            what = f"{num_cut} of {len(rows)} texts have more than {self.max_length} tokens"
            limit = f"over gold.max_cut_share={self.settings.max_cut_share}"
            raise RunError(f"gold: {what}, {limit}; raise gold.max_length or cut the texts")
        # Texts of like length share a batch, so that little is spent on padding.
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        values = torch.empty(len(rows), dtype=torch.float32)
        for start in range(0, len(rows), self.settings.batch_size):
            index = order[start : start + self.settings.batch_size]
            ids, mask = padded([rows[i] for i in index])
            with torch.inference_mode():
                scores = logits(self.model, ids.to(self.device), mask.to(self.device))
                score = scores[:, self.label]
                score = score if self.against is None else score - scores[:, self.against]
            values[torch.tensor(index)] = score.cpu()
        if broken := int((~values.isfinite()).sum()):
            what = f"{broken} of {len(rows)} scores of {self.settings.path} are not finite"
            raise RunError(f"gold: {what}; try gold.dtype=float32")
        return Scores(values, num_cut)

    def _number(self, field: str) -> int | None:
        """The logit that a setting names, by number or by the model's own label; None where it names none."""
        label, names = getattr(self.settings, field), self.model.config.id2label
        if label is None:
            return None
        for number, name in names.items():
            if label in (number, name):
                return int(number)
        known = ", ".join(f"{number} ({name})" for number, name in names.items())
        raise UserError(f"gold.{field}={label!r}: {self.settings.path} has the labels {known}")
