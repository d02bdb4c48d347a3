"""A Hugging Face sequence classifier, or reward model, as gold."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from framework.component import Component
from framework.data.paths import expand
from framework.errors import RunError, UserError
from framework.gold.scorer import GoldScorer, ScoredTexts
from framework.models.huggingface import HfModel, HfTokenizer


class Classifier(Component):
    """Judges text by a logit, or a difference of two, of a sequence-classification model."""

    kind: Literal["classifier"] = "classifier"
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
            UserError: nothing to load there, a model whose head was never trained, or no such label.
        """
        return ClassifierScorer(self, device)


class ClassifierScorer:
    """Holds the model and its own tokenizer."""

    def __init__(self, settings: Classifier, device: str) -> None:
        self.settings, self.device = settings, device
        self.model, self.tokenizer = _load(settings)
        self.model.to(device).eval()
        self.label = _label_number(settings.label, self.model, settings.path, "label")
        self.against = None
        if settings.against is not None:
            self.against = _label_number(settings.against, self.model, settings.path, "against")
        self.max_length = min(settings.max_length or _readable(self.model, self.tokenizer),
                              _readable(self.model, self.tokenizer))  # fmt: skip
        self.pad_id = _pad_id(self.model, self.tokenizer)

    @torch.inference_mode()
    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> ScoredTexts:
        """One logit (or difference of two) per text; the start of an over-long text is cut.

        Raises:
            RunError: too many texts were cut, or a score is not finite.
        """
        rows, num_cut = self._encode(prompts, responses)
        if num_cut > self.settings.max_cut_share * len(rows):
            raise RunError(
                f"gold: {num_cut} of {len(rows)} texts have more than {self.max_length} tokens, over "
                f"gold.max_cut_share={self.settings.max_cut_share}; raise gold.max_length or cut the texts"
            )
        # Texts of like length share a batch, so that little is spent on padding.
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        size = self.settings.batch_size if self.pad_id is not None else 1
        values = torch.empty(len(rows), dtype=torch.float32)
        for start in range(0, len(rows), size):
            index = order[start : start + size]
            values[torch.tensor(index)] = self._forward([rows[i] for i in index])
        if not bool(values.isfinite().all()):
            broken = int((~values.isfinite()).sum())
            raise RunError(
                f"gold: {broken} of {len(rows)} scores of {self.settings.path} are not finite; "
                "try gold.dtype=float32"
            )
        return ScoredTexts(values=values, num_cut=num_cut)

    def _encode(self, prompts: Sequence[str], responses: Sequence[str]) -> tuple[list[list[int]], int]:
        """Token ids of each text, cut to what the model reads, and how many were cut."""
        tokenizer, templated = self.tokenizer, bool(self.tokenizer.chat_template)
        if templated:
            texts = [_turns(tokenizer, p, r) for p, r in zip(prompts, responses, strict=True)]
        else:
            texts = [p + r for p, r in zip(prompts, responses, strict=True)]
        if not texts:
            return [], 0
        # A template writes its own special tokens.
        whole = tokenizer(texts, add_special_tokens=not templated, verbose=False)["input_ids"]
        num_cut = sum(len(row) > self.max_length for row in whole)
        if not num_cut:
            return whole, 0
        cut = tokenizer(texts, add_special_tokens=not templated, truncation=True, max_length=self.max_length)
        return cut["input_ids"], num_cut

    def _forward(self, rows: Sequence[Sequence[int]]) -> Float[Tensor, "B"]:
        """Scores of one batch. Right padding is invisible to both kinds of attention under the mask."""
        width = max(len(row) for row in rows)
        ids: Int[Tensor, "B S"] = torch.full((len(rows), width), self.pad_id or 0)
        mask: Int[Tensor, "B S"] = torch.zeros(len(rows), width, dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
        logits = self.model(input_ids=ids.to(self.device), attention_mask=mask.to(self.device)).logits.float()
        score = logits[:, self.label]
        return (score if self.against is None else score - logits[:, self.against]).cpu()


def _load(settings: Classifier) -> tuple[HfModel, HfTokenizer]:
    # Slow to import, and a configuration is checked without it.
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    path = expand(settings.path)
    dtype = settings.dtype if settings.dtype == "auto" else getattr(torch, settings.dtype)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, truncation_side="left")
        model, info = AutoModelForSequenceClassification.from_pretrained(
            path, dtype=dtype, output_loading_info=True, use_safetensors=True
        )
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"gold.path={settings.path}: no sequence classifier can be loaded ({reason})"
        ) from error
    if info["missing_keys"]:
        names = ", ".join(sorted(info["missing_keys"])[:3])
        raise UserError(
            f"gold.path={settings.path}: weights are missing ({names}): not a trained classifier; name one"
        )
    return model, tokenizer


def _label_number(label: int | str, model: HfModel, path: str, field: str) -> int:
    names: dict[int, str] = model.config.id2label
    for number, name in names.items():
        if label in (number, name):
            return int(number)
    known = ", ".join(f"{number} ({name})" for number, name in names.items())
    raise UserError(f"gold.{field}={label!r}: {path} has the labels {known}")


def _readable(model: HfModel, tokenizer: HfTokenizer) -> int:
    """Tokens that the model and its tokenizer can both take."""
    positions = getattr(model.config, "max_position_embeddings", None) or tokenizer.model_max_length
    if "roberta" in model.config.model_type:
        # RoBERTa numbers positions from its pad id on, so that many places and one more are never free.
        positions -= model.config.pad_token_id + 1
    return int(min(positions, tokenizer.model_max_length))


def _pad_id(model: HfModel, tokenizer: HfTokenizer) -> int | None:
    """The id to pad with, or None where texts must go one by one.

    A decoder's classifier finds a text's last token by comparing with its own pad id, so that one is used.
    """
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    return model.config.pad_token_id


def _turns(tokenizer: HfTokenizer, prompt: str, response: str) -> str:
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
    return str(tokenizer.apply_chat_template(turns, tokenize=False))
