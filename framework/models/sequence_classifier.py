"""Models published for sequence classification: loading, encoding and logits.

Used where such a model is gold and where it is a reward model. Its own tokenizer and chat template
decide which special tokens stand around a text; nothing is appended.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from framework.data.paths import expand
from framework.errors import UserError, first_line
from framework.models.adapters import base_of, head_size, merged, tokenizer_place
from framework.models.encoding import cut_starts, whole_texts
from framework.models.huggingface import HfModel, HfTokenizer
from framework.models.proof import prove_padding
from framework.models.tokenizer import check_sizes


def load_classifier(
    path: str, dtype: Literal["auto", "float32", "bfloat16"], field: str
) -> tuple[HfModel, HfTokenizer]:
    """A model, from safetensors, and its own tokenizer; `field` is the setting that errors name.

    Raises:
        UserError: nothing to load, a head that was never trained, a tokenizer of another model, or a text's logits
            depend on its batch.
    """
    # Slow to import, and a configuration is checked without it.
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    where = f"{field}={path}"
    base = base_of(path, where)
    place, labels = base or path, head_size(path, where) if base else None
    try:
        words = tokenizer_place(path, base) if base else path
        tokenizer = AutoTokenizer.from_pretrained(expand(words), truncation_side="left", trust_remote_code=False)
        model, info = AutoModelForSequenceClassification.from_pretrained(
            expand(place),
            dtype=dtype if dtype == "auto" else getattr(torch, dtype),
            output_loading_info=True,
            use_safetensors=True,
            trust_remote_code=False,
            **({} if labels is None else {"num_labels": labels}),
        )
    except (OSError, ValueError, KeyError) as error:
        reason = first_line(error)
        raise UserError(f"{where}: no sequence classifier can be loaded ({reason})") from error
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
    positions = getattr(model.config, "max_position_embeddings", None) or tokenizer.model_max_length
    if "roberta" in model.config.model_type:
        # RoBERTa numbers positions from its pad id on, so that many places and one more are never free.
        positions -= model.config.pad_token_id + 1
    return int(min(positions, tokenizer.model_max_length))


def tokenize(
    tokenizer: HfTokenizer,
    prompts: Sequence[str],
    responses: Sequence[str],
    max_tokens: int,
    ended: Sequence[bool] | None = None,
) -> tuple[list[list[int]], int]:
    """Token ids of each text, the start of an over-long one cut, and how many were cut."""
    templated, texts = bool(tokenizer.chat_template), whole_texts(tokenizer, prompts, responses, ended)
    if not texts:
        return [], 0
    # A template writes its own special tokens.
    rows = tokenizer(texts, add_special_tokens=not templated, verbose=False)["input_ids"]
    return cut_starts(tokenizer, rows, max_tokens)


def logits(model: HfModel, ids: Int[Tensor, "B S"], mask: Bool[Tensor, "B S"]) -> Float[Tensor, "B labels"]:
    """Float32 logits of right-padded texts; what stands in `ids` at padding does not matter.

    Right padding is invisible to both kinds of attention under the mask, and padding is written with
    the model's own pad id because decoders, and RoBERTa's positions, look for it. A model without a pad id
    is asked one text at a time.
    """
    pad = model.config.get_text_config().pad_token_id
    if pad is None and len(ids) > 1:
        rows = [(ids[i : i + 1, :n], mask[i : i + 1, :n]) for i, n in enumerate(mask.sum(dim=1).tolist())]
        return torch.cat([logits(model, *row) for row in rows])
    filled = ids if pad is None else ids.masked_fill(~mask, pad)
    return model(input_ids=filled, attention_mask=mask.long()).logits.float()
