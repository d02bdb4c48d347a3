"""Heads on one encoder: how they start, what trains, what a score depends on, and what is on disk."""

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from framework.errors import UserError
from framework.models.encoders import load_encoder, pooled, reads_and_takes
from framework.models.reward_heads import RewardHeads
from framework.worlds.reviews import Reviews
from tests.tiny_reward import encode_texts, encoder_folder, make_encoder

PROMPTS = ["the room :", "the food :", "the staff :"]
RESPONSES = [" the room was grand .", " was good", " the staff was kind , and the food was very good ."]
KINDS = pytest.mark.parametrize("kind", ["llama", "bert"])


@pytest.fixture(scope="module")
def tokenizer():
    return Reviews().tokenizer()


def heads(tokenizer, kind="llama", num_heads=3, seed=1, **settings):
    encoder = make_encoder(tokenizer, kind)
    torch.manual_seed(seed)
    return RewardHeads(encoder, num_heads, **settings).eval()


def encoded(tokenizer, module, rows=slice(None)):
    end = tokenizer.eos_token_id if module.causal else None
    ids, mask, _ = encode_texts(tokenizer, PROMPTS[rows], RESPONSES[rows], 64, end)
    return ids, mask


@KINDS
@torch.no_grad()
def test_a_score_depends_on_its_own_text_alone(tokenizer, kind):
    module = heads(tokenizer, kind)
    ids, mask = encoded(tokenizer, module)
    together = module(ids, mask)
    assert together.shape == (3, 3)
    assert together.std(dim=1).min() > 1e-3
    torch.testing.assert_close(module(ids[[2, 0, 1]], mask[[2, 0, 1]]), together[:, [2, 0, 1]])
    for i in range(3):
        alone = module(*encoded(tokenizer, module, slice(i, i + 1)))
        torch.testing.assert_close(alone[:, 0], together[:, i], rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_causal_encoder_is_read_at_its_last_token_and_another_at_the_mean(tokenizer):
    for kind, causal in (("llama", True), ("bert", False)):
        module = heads(tokenizer, kind)
        assert module.causal == causal
        ids, mask = encoded(tokenizer, module, slice(1, 2))
        states = module.encoder(input_ids=ids).last_hidden_state[0]
        expected = states[-1] if causal else states.mean(dim=0)
        torch.testing.assert_close(pooled(module.encoder, ids, mask, causal)[0], expected)


def test_heads_start_from_the_seed_at_their_scales(tokenizer):
    plain, again, other = (heads(tokenizer, num_heads=2, seed=seed).heads for seed in (1, 1, 2))
    assert torch.equal(plain.weight, again.weight)
    assert not torch.equal(plain.weight, other.weight)
    assert not torch.equal(plain.weight[0], plain.weight[1])
    assert plain.bias.abs().max() == 0
    scaled = heads(tokenizer, num_heads=2, init_scales=(1.0, 3.0)).heads.weight
    assert torch.equal(scaled, plain.weight * torch.tensor([[1.0], [3.0]]))
    many = heads(tokenizer, num_heads=2000).heads.weight
    assert many.std().item() == pytest.approx(1 / 17**0.5, rel=0.02)


@torch.no_grad()
def test_dropout_is_drawn_per_head_and_in_training_only(tokenizer):
    module = heads(tokenizer, dropout=0.5)
    module.heads.weight.copy_(module.heads.weight[:1].expand(3, -1))
    batch = encoded(tokenizer, module)
    assert torch.equal(module(*batch), heads_without_dropout(module)(*batch))
    module.train()
    trained = module(*batch)
    assert len({tuple(row) for row in trained.tolist()}) == 3
    mean = torch.stack([module(*batch) for _ in range(1000)]).mean(dim=0)
    torch.testing.assert_close(mean, module.eval()(*batch), rtol=0, atol=0.15)


def heads_without_dropout(module):
    plain = copy.deepcopy(module)
    plain.dropout = 0.0
    return plain


def test_a_frozen_encoder_has_no_gradient_and_no_dropout_of_its_own(tokenizer):
    module = heads(tokenizer, "bert", dropout=0.1)
    module.freeze_encoder(True)
    module.train()
    assert module.training
    assert not any(part.training for part in module.encoder.modules())
    module(*encoded(tokenizer, module)).sum().backward()
    assert {name for name, p in module.named_parameters() if p.grad is not None} == {"heads.weight", "heads.bias"}
    module.freeze_encoder(False)
    module.train()
    assert module.encoder.training
    module(*encoded(tokenizer, module)).sum().backward()
    assert all(p.grad is not None for p in module.parameters())


@torch.no_grad()
def test_kept_heads_say_what_they_said(tokenizer):
    module = heads(tokenizer, num_heads=4)
    batch = encoded(tokenizer, module)
    before = module(*batch)
    module.keep_heads(2)
    assert module.num_heads == 2
    torch.testing.assert_close(module(*batch), before[:2])


@KINDS
@torch.no_grad()
def test_a_folder_gives_back_the_same_scores_and_opens_as_a_plain_encoder(tokenizer, tmp_path, kind):
    module = heads(tokenizer, kind)
    batch = encoded(tokenizer, module)
    module.save(tmp_path)
    again = RewardHeads.load(tmp_path, 3).eval()
    assert torch.equal(again(*batch), module(*batch))
    assert reads_and_takes(tmp_path)[0] == again.causal == (kind == "llama")
    from transformers import AutoModel

    opened = AutoModel.from_pretrained(tmp_path)
    for name, value in module.encoder.state_dict().items():
        assert torch.equal(opened.state_dict()[name], value), name


def test_an_encoder_is_loaded_without_pooler_or_language_head(tmp_path):
    encoder = load_encoder(encoder_folder(tmp_path, "bert"))
    assert getattr(encoder, "pooler", None) is None
    assert not any(isinstance(part, nn.Linear) and part.out_features > 100 for part in encoder.modules())


def test_missing_heads_are_refused_with_both_shapes(tokenizer, tmp_path):
    heads(tokenizer).save(tmp_path)
    file = tmp_path / "heads.safetensors"
    kept = {name: value[:2].contiguous() for name, value in load_file(file).items()}
    save_file(kept, file)
    with pytest.raises(
        UserError, match=r"\[2, 16\], and \[3, 16\] were saved .*: heads are missing; fit the model again"
    ):
        RewardHeads.load(tmp_path, 3)
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"heads\.safetensors is damaged .*; fit the model again"):
        RewardHeads.load(tmp_path, 3)
    file.unlink()
    with pytest.raises(UserError, match=r"holds no heads\.safetensors: not a reward model; make one with fit-reward"):
        RewardHeads.load(tmp_path, 3)
