"""Which end of a text an encoder is read at, and that no weight of it is made up."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from framework.ensembles import Full
from framework.errors import UserError
from framework.models.encoders import load_encoder, reads_last_token
from framework.models.reward_model import RewardModel
from framework.worlds.reviews import Reviews
from tests.tiny_reward import encoder_folder, fit, make_pairs, small


@pytest.mark.parametrize("kind", ["bert", "roberta", "albert", "deberta-v2", "modernbert", "electra", "distilbert"])
def test_masked_models_see_both_ways(kind):
    assert reads_last_token(kind) is False


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2", "opt", "gpt_neox"])
def test_causal_models_are_read_at_their_last_token(kind):
    assert reads_last_token(kind) is True


@pytest.mark.parametrize("kind", ["t5", "clip", "nonsense"])
def test_what_is_neither_is_refused(kind):
    with pytest.raises(UserError, match=f"{kind}.* neither a causal nor a masked"):
        reads_last_token(kind)


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_missing_weights_are_refused_and_not_drawn(tmp_path, kind):
    folder = encoder_folder(tmp_path, kind)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    gone = next(name for name in tensors if "layer" in name and name.endswith("weight"))
    save_file({name: value for name, value in tensors.items() if name != gone}, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match="1 weights are missing"):
        load_encoder(folder)


def test_an_albert_score_is_its_own_texts_alone(tmp_path):
    from transformers import AlbertConfig, AlbertModel

    tokenizer = Reviews().tokenizer()
    torch.manual_seed(0)
    settings = AlbertConfig(
        vocab_size=len(tokenizer), embedding_size=8, hidden_size=16, num_hidden_layers=1,
        num_attention_heads=2, intermediate_size=16, max_position_embeddings=64, pad_token_id=0,
    )  # fmt: skip
    AlbertModel(settings, add_pooling_layer=False).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = fit(str(tmp_path), make_pairs(), ensemble=small(Full, members=1))
    pairs = make_pairs(6)
    prompts, texts = [p.prompt for p in pairs], [p.chosen for p in pairs]
    together = model.score(prompts, texts).values
    alone = torch.cat([model.score([p], [t]).values for p, t in zip(prompts, texts, strict=True)], dim=1)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)


def test_a_published_member_reads_its_own_rows_after_loading_too(tmp_path):
    """It shares its tokenizer with the fitted member beside it, and reads texts of another length."""
    from transformers import BertConfig, BertForSequenceClassification

    tokenizer = Reviews().tokenizer()
    torch.manual_seed(0)
    settings = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=64, num_labels=1, pad_token_id=0, initializer_range=0.3,
    )  # fmt: skip
    (tmp_path / "published").mkdir()
    BertForSequenceClassification(settings).save_pretrained(tmp_path / "published")
    tokenizer.save_pretrained(tmp_path / "published")
    ensemble = small(Full, members=1, published=(str(tmp_path / "published"),))
    (tmp_path / "encoder").mkdir()
    source = encoder_folder(tmp_path / "encoder", "bert")
    model = fit(source, make_pairs(), ensemble=ensemble, max_tokens=6, max_cut_share=1.0)
    (tmp_path / "saved").mkdir()
    model.save(tmp_path / "saved")
    pairs = make_pairs(8)
    texts = [p.prompt for p in pairs], [p.chosen for p in pairs]
    loaded = RewardModel.load(tmp_path / "saved", rows=model.rows)  # same passes, same bits
    assert torch.equal(loaded.score(*texts).values, model.score(*texts).values)


def test_weights_that_are_no_numbers_are_called_damaged(tmp_path):
    weights = load_file(Path(encoder_folder(tmp_path)) / "model.safetensors")
    weights["norm.weight"][:] = float("nan")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="not finite: its weights are damaged"):
        load_encoder(tmp_path)
