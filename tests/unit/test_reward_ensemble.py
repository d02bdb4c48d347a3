"""The reward ensemble: heads on one encoder, calibration, its folder, and how texts reach it."""

import pytest
import torch

from framework.errors import UserError
from framework.models.causal import TinyLlama
from framework.models.reward_ensemble import RewardEnsemble, encode_texts
from framework.worlds.reviews import Reviews

PROMPTS = ["the room :", "the food :", "the staff :"]
RESPONSES = [" the room was grand .", " was good", " the staff was kind , and the food was very good ."]


@pytest.fixture(scope="module")
def tokenizer():
    return Reviews().tokenizer()


@pytest.fixture
def ensemble(tokenizer):
    torch.manual_seed(0)
    model = TinyLlama(hidden=16, layers=1, heads=2, intermediate=16).build(
        len(tokenizer), tokenizer.pad_token_id, tokenizer.eos_token_id
    )
    return RewardEnsemble(model.base_model, num_heads=3).eval()


@pytest.fixture
def encoded(tokenizer):
    ids, mask, _ = encode_texts(tokenizer, PROMPTS, RESPONSES, 64, tokenizer.eos_token_id)
    return ids, mask


def test_calibrated_scores_are_centred_and_scaled_per_head(ensemble, encoded):
    with torch.no_grad():
        raw = ensemble.raw_scores(*encoded)
        ensemble.calibrate(raw)
        scores = ensemble(*encoded)
    assert scores.shape == (3, 3)
    torch.testing.assert_close(scores.mean(dim=1), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(scores.std(dim=1, correction=0), torch.ones(3), rtol=0, atol=1e-5)


def test_calibration_ignores_a_heads_own_unit(ensemble, encoded):
    with torch.no_grad():
        ensemble.calibrate(ensemble.raw_scores(*encoded))
        before = ensemble(*encoded)
        ensemble.heads.weight[1] *= 7
        ensemble.heads.bias[1] += 100
        ensemble.calibrate(ensemble.raw_scores(*encoded))
        torch.testing.assert_close(ensemble(*encoded), before, rtol=0, atol=1e-3)


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_a_head_without_a_scale_is_refused(ensemble, value):
    raw = torch.randn(3, 10)
    raw[1] = value
    with pytest.raises(UserError, match=r"heads \[1\]"):
        ensemble.calibrate(raw)
    assert ensemble.scale.tolist() == [1, 1, 1]


def test_a_score_depends_on_its_own_text_alone(ensemble, tokenizer, encoded):
    ids, mask = encoded
    with torch.no_grad():
        together = ensemble(ids, mask)
        torch.testing.assert_close(ensemble(ids[[2, 0, 1]], mask[[2, 0, 1]]), together[:, [2, 0, 1]])
        for i in range(3):
            alone, alone_mask, _ = encode_texts(
                tokenizer, PROMPTS[i : i + 1], RESPONSES[i : i + 1], 64, tokenizer.eos_token_id
            )
            torch.testing.assert_close(ensemble(alone, alone_mask)[:, 0], together[:, i], rtol=0, atol=1e-5)


def test_a_folder_gives_back_the_same_scores(ensemble, encoded, tmp_path):
    with torch.no_grad():
        ensemble.calibrate(ensemble.raw_scores(*encoded))
        ensemble.save(tmp_path)
        again = RewardEnsemble.load(tmp_path).eval()
        assert again.num_heads == 3
        assert torch.equal(again(*encoded), ensemble(*encoded))


def test_a_folder_without_heads_is_refused(ensemble, tmp_path):
    ensemble.save(tmp_path)
    (tmp_path / "heads.safetensors").unlink()
    with pytest.raises(UserError, match=r"no heads\.safetensors: not a reward model"):
        RewardEnsemble.load(tmp_path)


def test_an_end_token_closes_a_text_for_a_causal_encoder(tokenizer):
    ids, mask, _ = encode_texts(tokenizer, PROMPTS, RESPONSES, 64, tokenizer.eos_token_id)
    last = mask.sum(dim=1) - 1
    assert ids[torch.arange(3), last].tolist() == [tokenizer.eos_token_id] * 3
    whole = tokenizer(PROMPTS[1] + RESPONSES[1])["input_ids"]
    assert ids[1][mask[1]].tolist() == [*whole, tokenizer.eos_token_id]


def test_a_cut_keeps_the_end_and_is_counted(tokenizer):
    ids, mask, num_cut = encode_texts(tokenizer, PROMPTS, RESPONSES, 8, tokenizer.eos_token_id)
    whole = tokenizer(PROMPTS[2] + RESPONSES[2])["input_ids"]
    assert num_cut == 2
    assert ids.shape[1] == 8
    assert ids[2].tolist() == [*whole[-7:], tokenizer.eos_token_id]
    assert mask.sum(dim=1).tolist() == [8, 6, 8]
