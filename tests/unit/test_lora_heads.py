"""Adapters on one encoder: each is its own, and none touches the encoder."""

import json

import pytest
import torch

from framework.models.encoders import pooled
from framework.models.lora_heads import LoraHeads
from framework.training.engine import Optimizer
from framework.training.torch_engine import TorchEngine
from framework.worlds.reviews import Reviews
from tests.tiny_reward import encode_texts, make_encoder

PROMPTS = ["the room :", "the food :", "the staff :"]
RESPONSES = [" the room was grand .", " was good", " the staff was kind , and the food was very good ."]


@pytest.fixture(params=["llama", "bert"])
def kind(request):
    return request.param


@pytest.fixture
def batch(kind):
    tokenizer = Reviews().tokenizer()
    return encode_texts(tokenizer, PROMPTS, RESPONSES, 64, 1 if kind == "llama" else None)[:2]


@pytest.fixture
def ensemble(kind):
    encoder = make_encoder(Reviews().tokenizer(), kind)
    torch.manual_seed(1)
    return LoraHeads(encoder, num_heads=3, rank=2, alpha=4.0).eval()


def fit_member(ensemble, k, batch, steps=3):
    member = ensemble.member(k)
    engine = TorchEngine(member, Optimizer(lr=0.05))
    for _ in range(steps):
        engine.backward(member(*batch).square().sum())
        engine.step()


def state(ensemble):
    return {name: value.clone() for name, value in ensemble.state_dict().items()}


@torch.no_grad()
def test_adapters_begin_as_no_change(ensemble, kind, batch):
    encoder = make_encoder(Reviews().tokenizer(), kind)
    features = pooled(encoder, *batch, ensemble.causal)
    scores = ensemble(*batch)
    assert scores.shape == (3, 3)
    for k, head in enumerate(ensemble.heads):
        torch.testing.assert_close(scores[k], head(features)[:, 0], rtol=0, atol=1e-6)


def test_a_member_trains_its_own_adapter_and_head_only(ensemble, batch):
    before = state(ensemble)
    fit_member(ensemble, 1, batch)
    changed = {name for name, value in ensemble.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(".adapter_1." in name or name.startswith("heads.1.") for name in changed)
    assert {"heads.1.weight", "heads.1.bias"} <= changed
    assert any("lora_A" in name for name in changed) and any("lora_B" in name for name in changed)
    # Every matrix of the encoder's layers has been adapted.
    wrapped = {name.split(".lora_")[0] for name in before if ".lora_" in name}
    assert {name.split(".lora_")[0] for name in changed if ".lora_B." in name} == wrapped


def test_fitting_one_member_leaves_the_others_scores_alone(ensemble, batch):
    fit_member(ensemble, 0, batch)
    with torch.no_grad():
        before = ensemble(*batch)
    fit_member(ensemble, 2, batch)
    with torch.no_grad():
        after = ensemble(*batch)
    assert torch.equal(after[:2], before[:2])
    assert not torch.equal(after[2], before[2])


@torch.no_grad()
def test_scoring_asks_for_no_gradient_in_any_order(ensemble, batch):
    ensemble.requires_grad_(False)
    whole = ensemble(*batch)
    assert not any(p.requires_grad for p in ensemble.parameters())
    backwards = torch.cat([ensemble.read_one(k, *batch)[0] for k in (2, 1, 0)])
    assert torch.equal(backwards.flip(0), whole)


def test_a_folder_gives_back_the_same_scores_and_opens_as_the_plain_encoder(ensemble, kind, batch, tmp_path):
    for k in range(3):
        fit_member(ensemble, k, batch)
    ensemble.save(tmp_path)
    for path in tmp_path.glob("adapter_*/adapter_config.json"):
        names = json.loads(path.read_text())["target_modules"]
        assert names == sorted(names) and len(names) > 1  # else the folder has another hash in each process
    again = LoraHeads.load(tmp_path, 3, rank=2, alpha=4.0).eval()
    with torch.no_grad():
        assert torch.equal(again(*batch), ensemble(*batch))
    from transformers import AutoModel

    opened, begun = (AutoModel.from_pretrained(tmp_path).state_dict(), make_encoder(Reviews().tokenizer(), kind))
    for name, value in begun.state_dict().items():
        assert torch.equal(opened[name], value), name
    assert (tmp_path / "adapter_2" / "adapter_config.json").is_file()
    assert not list(tmp_path.rglob("README.md"))


def test_a_member_is_saved_with_its_ensemble_only(ensemble, tmp_path):
    with pytest.raises(AssertionError, match="save the ensemble"):
        ensemble.member(0).save(tmp_path)
