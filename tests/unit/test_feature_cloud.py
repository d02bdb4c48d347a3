"""How far a text's features lie from the training texts': against closed forms, scikit-learn and folders."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from sklearn.covariance import LedoitWolf

from framework.errors import UserError
from framework.models.feature_cloud import CLOUD_FILE, FeatureCloud
from framework.models.lora_heads import LoraHeads
from framework.models.reward_heads import RewardHeads
from framework.models.reward_model import RewardModel
from framework.worlds.reviews import Reviews
from tests.tiny_reward import encode_texts, encoder_folder, fit, make_encoder, make_pairs, published_folder

TEXTS = (["the room :"] * 3, [" good", " it was bad and poor", " fine" * 9])


def features(count, width, encodings=1, seed=0):
    drawn = np.random.default_rng(seed).standard_normal((encodings, count, width))
    return torch.from_numpy(drawn * np.arange(1, width + 1) + 5)


def test_it_is_the_mahalanobis_distance_in_units_of_its_root_mean_square():
    drawn, other = features(80, 6), features(5, 6, seed=1)
    known = LedoitWolf().fit(drawn[0].numpy())
    unit = known.mahalanobis(drawn[0].numpy()).mean()
    expected = np.sqrt(known.mahalanobis(other[0].numpy()) / unit)
    cloud = FeatureCloud.fit(drawn)
    np.testing.assert_allclose(cloud.distances(other)[0].numpy(), expected, rtol=1e-5)


@settings(max_examples=20, deadline=None)
@given(count=st.integers(2, 60), width=st.integers(1, 40), encodings=st.integers(1, 3), seed=st.integers(0, 99))
def test_training_texts_have_a_mean_square_distance_of_one(count, width, encodings, seed):
    drawn = features(count, width, encodings, seed)
    distances = FeatureCloud.fit(drawn).distances(drawn)
    assert distances.shape == (encodings, count)
    torch.testing.assert_close(distances.square().mean(dim=1), torch.ones(encodings), rtol=0, atol=1e-3)


def test_twice_as_far_from_the_centre_is_twice_the_distance():
    drawn = features(50, 4)
    cloud = FeatureCloud.fit(drawn)
    centre = drawn.mean(dim=1, keepdim=True)
    once, twice = (cloud.distances(centre + times * torch.ones(1, 1, 4).double()) for times in (1, 2))
    torch.testing.assert_close(twice, 2 * once)


def test_a_feature_that_never_varied_is_far_but_finite():
    drawn = torch.tensor([[[0.0, 3.0]] * 50 + [[2.0, 3.0]] * 50]).double()
    moved = torch.tensor([[[1.0, 4.0]]]).double()
    distance = FeatureCloud.fit(drawn).distances(moved)
    assert 5 < distance < 200


@pytest.mark.parametrize("count", [1, 9])
def test_texts_that_are_all_alike_make_no_cloud(count):
    assert FeatureCloud.fit(torch.full((1, count, 4), 0.1)) is None


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_the_features_are_those_of_the_pass_that_scores(kind):
    tokenizer = Reviews().tokenizer()
    torch.manual_seed(0)
    heads = RewardHeads(make_encoder(tokenizer, kind), 2).eval()
    adapters = LoraHeads(make_encoder(tokenizer, kind), 2, rank=2, alpha=4).eval()
    with torch.no_grad():
        for member in (heads, adapters):
            ids, mask, _ = encode_texts(tokenizer, *TEXTS, 32, tokenizer.eos_token_id if member.causal else None)
            scores, features = member.read(ids, mask)
            assert torch.equal(scores, member(ids, mask))
            if member is heads:
                assert torch.equal(features, heads.features(ids, mask)[None])
                torch.testing.assert_close(heads.heads(features[0]).T, scores)
            else:
                again = torch.cat([adapters.heads[k](features[k]).T for k in range(2)])
                torch.testing.assert_close(again, scores)


def test_scores_do_not_depend_on_the_cloud(tmp_path):
    model = fit(encoder_folder(tmp_path / "encoder"), make_pairs())
    with_cloud = model.score(*TEXTS)
    assert with_cloud.distances.shape == (1, 3)
    model.clouds = [None]
    without = model.score(*TEXTS)
    assert without.distances.shape == (0, 3)
    assert torch.equal(with_cloud.values, without.values)


def test_a_folder_of_an_earlier_version_and_a_published_model_have_no_distance(tmp_path):
    fit(encoder_folder(tmp_path / "encoder"), make_pairs()).save(tmp_path / "reward")
    (tmp_path / "reward" / CLOUD_FILE).unlink()
    published = RewardModel.published(published_folder(tmp_path / "published"), field="score_pairs.model")
    published.fit_clouds(*TEXTS)
    for model in (RewardModel.load(tmp_path / "reward"), published):
        assert model.score(*TEXTS).distances.shape == (0, 3)


def test_a_damaged_cloud_is_refused_by_name(tmp_path):
    FeatureCloud.fit(features(20, 4)).save(tmp_path)
    path = tmp_path / CLOUD_FILE
    whole = path.read_bytes()
    path.write_bytes(whole[:90])
    with pytest.raises(UserError, match=r"cloud\.safetensors is damaged"):
        FeatureCloud.load(tmp_path)
    save_file({"mean": torch.zeros(1, 4), "whitening": torch.zeros(1, 3, 3)}, path)
    with pytest.raises(UserError, match="do not fit together; fit the model again"):
        FeatureCloud.load(tmp_path)


def test_the_sample_of_training_texts_is_bounded_and_drawn_by_the_seed(tmp_path, monkeypatch):
    seen = []
    plain = RewardModel.fit_clouds
    monkeypatch.setattr(RewardModel, "fit_clouds", lambda self, *texts: (seen.append(texts), plain(self, *texts))[1])
    pairs = make_pairs(count=400)
    for seed in (0, 0, 1):
        fit(encoder_folder(tmp_path / "encoder"), pairs, seed=seed)
    (first, again, other) = seen
    assert first == again != other
    assert len(first[0]) == len(first[1]) == 512
    trained = {(p.prompt, text, True) for p in pairs if p.split == "train" for text in (p.chosen, p.rejected)}
    assert set(zip(*first, strict=True)) <= trained
