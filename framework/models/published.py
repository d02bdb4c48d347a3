"""Models that someone published for sequence classification: as gold, and as one member of a reward ensemble.

A model's own tokenizer and chat template decide which special tokens stand around a text; nothing is appended.
"""

from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from framework.data.paths import expand
from framework.errors import UserError, first_line
from framework.models.adapters import base_of, head_size, merged, tokenizer_place
from framework.models.encoders import positions_of
from framework.models.huggingface import HfModel, HfTokenizer
from framework.models.proof import prove_padding
from framework.models.reward_heads import Member
from framework.models.tokenizer import check_sizes


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
    def from_published(cls, path: str | Path, field: str = "fit_reward.ensemble.published") -> "PublishedReward":
        """A hub id or folder, in float32, errors as of `load_classifier`; one label or two, else the reward is not known."""
        model, tokenizer = load_classifier(str(path), "float32", field)
        if model.config.num_labels not in (1, 2):
            names = ", ".join(model.config.id2label.values())
            raise UserError(
                f"{field}={path}: a reward model has 1 label, or 2 (bad, good), and this one has "
                f"{model.config.num_labels} ({names}); name another, or take it as gold with gold.label"
            )
        return cls(model.eval(), tokenizer)

    def forward(self, input_ids: Int[Tensor, "B S"], mask: Bool[Tensor, "B S"]) -> Float[Tensor, "1 B"]:
        """The published score of right-padded texts. A difference of two logits is the log-odds of label 1."""
        scores = logits(self.model, input_ids, mask)
        one = scores[:, 0] if scores.shape[1] == 1 else scores[:, 1] - scores[:, 0]
        return one.unsqueeze(0)

    def save(self, folder: Path) -> None:
        """Write model and tokenizer in plain Hugging Face layout, so that they load as what they were."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def load_classifier(path: str, dtype: str, field: str) -> tuple[HfModel, HfTokenizer]:
    """A model, of a dtype of torch's or "auto", and its own tokenizer; `field` is the setting that errors name.

    A `UserError` where there is nothing to load, a head that was never trained, a tokenizer of another model, or where a
    text's logits depend on its batch.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer  # slow to import

    where = f"{field}={path}"
    base = base_of(path, where)
    labels = head_size(path, where) if base else None
    try:
        words = tokenizer_place(path, base) if base else path
        tokenizer = AutoTokenizer.from_pretrained(expand(words), trust_remote_code=False)
        model, info = AutoModelForSequenceClassification.from_pretrained(
            expand(base or path),
            dtype=dtype if dtype == "auto" else getattr(torch, dtype),
            output_loading_info=True,
            use_safetensors=True,
            trust_remote_code=False,
            **({} if labels is None else {"num_labels": labels}),
        )
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{where}: no sequence classifier can be loaded ({first_line(error)})") from error
    if base:
        model = merged(model, path, where, info["missing_keys"])
    elif info["missing_keys"]:
        names = ", ".join(sorted(info["missing_keys"])[:3])
        raise UserError(f"{where}: weights are missing ({names}): not a trained classifier; name one")
    check_sizes(tokenizer, model.get_input_embeddings().num_embeddings, where)
    config = model.config.get_text_config()
    if getattr(config, "pad_token_id", None) is None:
        # A decoder's classifier finds a text's last token by comparing with its own pad id.
        config.pad_token_id = tokenizer.pad_token_id
    prove_padding(model, lambda ids, mask: logits(model, ids, mask), where)
    return model, tokenizer


def readable_tokens(model: HfModel, tokenizer: HfTokenizer) -> int:
    """Tokens that the model and its tokenizer can both take."""
    most = tokenizer.model_max_length
    return int(min(positions_of(model.config) or most, most))


def logits(model: HfModel, ids: Int[Tensor, "B S"], mask: Bool[Tensor, "B S"]) -> Float[Tensor, "B labels"]:
    """Float32 logits of right-padded texts; what stands in `ids` at padding does not matter.

    Right padding is invisible to both kinds of attention under the mask, and padding is written with the model's own pad
    id because decoders, and RoBERTa's positions, look for it. A model without a pad id is asked one text at a time.
    """
    pad = model.config.get_text_config().pad_token_id
    if pad is None and len(ids) > 1:
        rows = [(ids[i : i + 1, :n], mask[i : i + 1, :n]) for i, n in enumerate(mask.sum(dim=1).tolist())]
        return torch.cat([logits(model, *row) for row in rows])
    filled = ids if pad is None else ids.masked_fill(~mask, pad)
    return model(input_ids=filled, attention_mask=mask.long()).logits.float()
