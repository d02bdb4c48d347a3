"""Tiny encoders and pairs to fit reward models to: a fit takes a tenth of a second."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from framework.data.preferences import Pair
from framework.ensembles import Ensemble
from framework.models.encoding import padded, tokenize_texts
from framework.models.huggingface import HfModel, HfTokenizer
from framework.models.reward_model import RewardModel
from framework.models.settings import TinyLlama
from framework.seeding import numpy_generator
from framework.training.engine import Optimizer
from framework.training.fit import FitCheckpoints, FitSetting
from framework.training.reward_fit import fit_reward
from framework.training.reward_settings import FitReward
from framework.worlds.reviews import Reviews

GOOD = ("good", "grand", "lovely", "superb", "great", "fine")
BAD = ("bad", "awful", "dreadful", "dismal", "poor", "rude")
PROMPTS = ("the room :", "the food :", "the staff :", "today the hotel :", "overall the bar :")
SETTINGS: dict[str, Any] = {"epochs": 1, "batch": 8, "max_tokens": 32, "optimizer": Optimizer(lr=1e-2), "save_every": 2}


def make_encoder(tokenizer: HfTokenizer, kind: str = "llama", seed: int = 0) -> HfModel:
    """An encoder of width 16 that reads a text at its last token (llama) or at all of them (bert)."""
    torch.manual_seed(seed)
    if kind == "llama":
        tiny = TinyLlama(hidden=16, layers=1, heads=2, intermediate=16)
        return tiny.build(len(tokenizer), tokenizer.pad_token_id, tokenizer.eos_token_id).base_model.eval()
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=64, initializer_range=0.1, pad_token_id=0,
    )  # fmt: skip
    return BertModel(config, add_pooling_layer=False).eval()


def encoder_folder(folder: Path, kind: str = "llama", seed: int = 0) -> str:
    """A folder with such an encoder and its tokenizer: what a fit starts from."""
    tokenizer = Reviews().tokenizer()
    make_encoder(tokenizer, kind, seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def published_folder(folder: Path, seed: int = 0) -> str:
    """A reward model as others publish theirs: a sequence classifier with one label."""
    from transformers import LlamaConfig, LlamaForSequenceClassification

    tokenizer = Reviews().tokenizer()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, intermediate_size=16, max_position_embeddings=64, num_labels=1,
        initializer_range=0.2, pad_token_id=0, bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def encode_texts(
    tokenizer: HfTokenizer, prompts: Sequence[str], responses: Sequence[str], max_tokens: int, end_id: int | None
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Right-padded ids and mask of prompt + response, and how many rows had to be cut."""
    rows, num_cut = tokenize_texts(tokenizer, prompts, responses, max_tokens, end_id)
    return *padded(rows), num_cut


def make_pairs(count: int = 40, held: int = 16, seed: int = 0) -> list[Pair]:
    """Pairs whose chosen response is the kinder one; the last `held` are held out. Lengths vary."""
    random = numpy_generator("tiny pairs", seed)

    def response(words: Sequence[str]) -> str:
        chosen = [words[int(i)] for i in random.integers(len(words), size=int(random.integers(1, 5)))]
        return " it was " + " and ".join(chosen) + " ."

    return [
        Pair(
            PROMPTS[int(random.integers(len(PROMPTS)))],
            response(GOOD),
            response(BAD),
            split="held_out" if i >= count else "train",
        )
        for i in range(count + held)
    ]


def small(member: type, **changes: object) -> Ensemble:
    """An ensemble of a kind with as few parts as it can show itself with: two."""
    fields = getattr(member, "model_fields", {})
    return member(**({name: 2 for name in ("heads", "members") if name in fields} | changes))


def fit(
    source: str, pairs: Sequence[Pair], seed: int = 0, setting: dict[str, Any] | None = None, **settings: Any
) -> RewardModel:
    """The model that `fit_reward` makes of the pairs with these settings."""
    around = FitSetting(seed=seed, **(setting or {}))
    return fit_reward(FitReward(**(SETTINGS | settings)), source, pairs, around, rows=8)[0]


def fit_in(folder: Path, source: str, pairs: Sequence[Pair], progress: Any = None, **settings: Any) -> RewardModel:
    """As `fit`, with its parts kept in a folder, where it also takes up what it finds."""
    setting = {"checkpoints": FitCheckpoints(folder), "progress": progress}
    return fit(source, pairs, setting=setting, **settings)


def weights(model: RewardModel) -> dict[str, torch.Tensor]:
    """Every weight of every member, and the calibration."""
    states = {
        f"{index}.{name}": value
        for index, member in enumerate(model.members)
        for name, value in member.state_dict().items()
    }
    return states | {"centre": model.centre, "scale": model.scale, "reference": model.reference.scores}


def same(a: RewardModel, b: RewardModel) -> bool:
    """Whether two models are equal to the bit."""
    mine, theirs = weights(a), weights(b)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
