"""Writes docs/families.md: every family of transformers' lists, built tiny, as a policy and as a reward model.

python -m tests.repository.generate_families
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.models.auto import modeling_auto

from framework.errors import UserError
from framework.models.causal import load_causal
from framework.models.encoders import load_encoder
from framework.models.proof import LARGEST_KL, prove, prove_padding
from framework.models.published import logits
from tests.tiny_families import tiny_model

CAUSAL = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
MASKED = modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
CLASSIFIERS = modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
PAGE = Path(__file__).resolve().parents[2] / "docs" / "families.md"
FAMILIES = sorted({*CAUSAL, *CLASSIFIERS})
HEAD = f"""# Model families

Which Hugging Face models can be a policy, the encoder of a reward model, or a finished reward model or gold. Every type in
transformers' lists for causal language models and for sequence classification was built tiny, with weights away from their
start, saved, loaded as a run loads it, and measured (transformers {transformers.__version__.rsplit(".", 1)[0]}).

- **yes**: what is sampled and what is learnt from, left-padded and token by token on a cache, is the distribution of the model's
  own forward on each text alone: KL at most {LARGEST_KL:g} nats per token, and here no more than the figure. For a reward model:
  what is read out of a text does not depend on the longer texts beside it.
- **refused**: one line says why, before anything is fitted. The same proof is made of every model when it is converted, and of a
  policy once more where it runs: this table is what came out for tiny models, not a list that anything is looked up in.
- **not tried**: transformers makes no tiny one from a few sizes. The proof decides when a real one is loaded.
- **–**: not in transformers' list.

`python -m tests.repository.generate_families` writes this page anew.

| type | policy | encoder | classifier |
| --- | --- | --- | --- |
"""


def as_policy(kind: str) -> str:
    """What comes of a tiny model as a policy, with its KL in nats per token from the model's own forward, rounded up."""

    def read(folder: str) -> str:
        kl = prove(load_causal(folder, kind), kind)
        return f"KL ≤ {next(bound for bound in (1e-9, 1e-7, LARGEST_KL) if kl <= bound):.0e}"

    return _tried(kind, AutoModelForCausalLM, CAUSAL, read)


def as_encoder(kind: str) -> str:
    known = {**CAUSAL, **MASKED}
    return _tried(kind, AutoModel, known, load_encoder, is_decoder=kind not in MASKED)


def as_classifier(kind: str) -> str:
    def read(folder: str) -> None:
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, use_safetensors=True, trust_remote_code=False
        )
        prove_padding(model, lambda ids, mask: logits(model, ids, mask), kind)

    return _tried(kind, AutoModelForSequenceClassification, CLASSIFIERS, read, is_decoder=kind not in MASKED)


def row(kind: str) -> str:
    return f"| {kind} | {as_policy(kind)} | {as_encoder(kind)} | {as_classifier(kind)} |"


def _tried(kind: str, auto: object, known: object, load: Callable[[str], object], is_decoder: bool = True) -> str:
    if kind not in known:
        return "–"
    with tempfile.TemporaryDirectory() as folder:
        try:
            tiny_model(kind, auto, **({} if is_decoder else {"is_decoder": False})).save_pretrained(folder)
        except Exception as error:  # noqa: BLE001  # any kind: this is code of two hundred families
            return f"not tried ({type(error).__name__})"
        try:
            found = load(folder)
        except UserError as error:
            return f"refused: {_reason(str(error))}"
    return f"yes, {found}" if isinstance(found, str) else "yes"


def _reason(line: str) -> str:
    """The line without its figures, which move between machines."""
    for words, short in (
        ("read with left padding", "left padding changes it"),
        ("read token by token", "its cache changes it"),
        ("keeps no cache", "keeps no cache"),
        ("depends on the longer texts", "a text depends on its batch"),
        ("cannot be", "its forward takes no plain batch"),
        ("is not a causal", "not a causal language model"),
        ("neither a causal", "neither causal nor masked"),
    ):
        if words in line:
            return short
    raise AssertionError(line)


def main() -> None:
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    rows = []
    for kind in FAMILIES:
        rows.append(row(kind))
        print(rows[-1], file=sys.stderr, flush=True)
    PAGE.write_text(HEAD + "\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
