"""A reward model in whole: calibration, length, cuts, shares of members, and folders that are not right."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from framework.errors import RunError, UserError
from framework.models.reward_folder import is_reward_model, read_reference
from framework.models.reward_heads import RewardHeads
from framework.models.reward_model import RewardModel
from framework.worlds.reviews import Reviews
from tests.tiny_reward import encoder_folder, fit, make_encoder, make_pairs, published_folder

PROMPTS = ["the room :", "the food :", "the staff :", "the bar :"] * 5
RESPONSES = [
    " it was " + " and ".join(words)
    for words in (["good"], ["bad"] * 2, ["grand", "poor", "fine"], ["dismal"] * 5, ["great"] * 7)
    for _ in range(4)
]


class Words(nn.Module):
    """One head per factor: the words of a text times it, plus the number of words `good`."""

    causal = True
    shows_features = False

    def __init__(self, *factors):
        super().__init__()
        self.factors = nn.Parameter(torch.tensor(factors))
        self.num_heads = len(factors)

    def forward(self, input_ids, mask):
        good = (input_ids == Reviews().tokenizer().get_vocab()["good"]).sum(dim=1)
        return self.factors[:, None] * mask.sum(dim=1)[None].float() + good.float()


@pytest.fixture(scope="module")
def tokenizer():
    return Reviews().tokenizer()


@pytest.fixture
def model(tokenizer):
    torch.manual_seed(1)
    members = [RewardHeads(make_encoder(tokenizer, seed=i), heads) for i, heads in enumerate((2, 1))]
    return RewardModel(members, [tokenizer] * 2, max_tokens=32, rows=8).to("cpu")


@pytest.fixture
def folder(model, tmp_path):
    model.calibrate(PROMPTS, RESPONSES)
    model.save(tmp_path / "reward")
    return tmp_path / "reward"


def test_calibrated_scores_are_centred_and_scaled_per_head(model):
    model.calibrate(PROMPTS, RESPONSES)
    scores = model.score(PROMPTS, RESPONSES).values
    assert scores.shape == (3, 20)
    torch.testing.assert_close(scores.mean(dim=1), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(scores.std(dim=1, correction=0), torch.ones(3), rtol=0, atol=1e-5)
    assert torch.equal(model.reference.scores, scores)
    assert model.reference.lengths.tolist() == [len(response) for response in RESPONSES]


def test_scores_before_calibration_are_raw(model):
    assert torch.equal(model.score(PROMPTS, RESPONSES).values, model.read(PROMPTS, RESPONSES).values)
    with pytest.raises(AssertionError, match="calibrate the model first"):
        _ = model.reference


@pytest.mark.parametrize("bias", [0.0, 3.0, 1e4])
def test_a_head_that_scores_all_alike_is_refused_by_its_number(model, bias):
    with torch.no_grad():
        model.members[0].heads.weight[1] = 0
        model.members[0].heads.bias[1] = bias
    with pytest.raises(UserError, match=r"reward heads \[1\] give every reference response the same score") as raised:
        model.calibrate(PROMPTS, RESPONSES)
    assert "fit_reward.epochs" in str(raised.value)
    assert model.scale.tolist() == [1, 1, 1]


def test_a_score_that_is_no_number_stops_with_head_and_row(model, folder):
    with torch.no_grad():
        model.members[1].encoder.embed_tokens.weight[model.tokenizers[0].get_vocab()["dismal"]] = float("nan")
    with pytest.raises(RunError, match="reward: head 2 gives nan for row 12"):
        model.score(PROMPTS, RESPONSES)
    with pytest.raises(UserError, match=r"heads \[2\]"):
        model.calibrate(PROMPTS, RESPONSES)
    share = RewardModel.load(folder, share=(1, 2))
    with torch.no_grad():
        share.members[0].heads.bias.fill_(float("nan"))
    with pytest.raises(RunError, match="reward: head 2 gives nan for row 0"):
        share.score(PROMPTS, RESPONSES)


def test_texts_over_the_limit_are_counted_once_whoever_reads_them(model):
    words = [len(f"{p}{r} <eos>".split()) for p, r in zip(PROMPTS, RESPONSES, strict=True)]
    model.max_tokens = 10
    assert model.score(PROMPTS, RESPONSES).num_cut == sum(count > 10 for count in words) == 12


def test_no_texts_have_no_scores(model, folder):
    for some in (model, RewardModel.load(folder, share=(6, 7)), RewardModel.load(folder, share=(0, 7))):
        scored = some.score([], [])
        assert (scored.values.shape, scored.num_cut) == ((some.num_heads, 0), 0)


def test_the_length_curve_takes_length_out_and_leaves_the_rest(tokenizer, tmp_path):
    both = RewardModel([Words(1.0, -0.5)], [tokenizer], 32)
    prompts, responses = (
        ["the room :"] * 60,
        [" fine" * (1 + i % 12) + (" good" if i % 7 < 3 else " bad ") for i in range(60)],
    )

    def rho():
        return torch.corrcoef(torch.cat([both.reference.scores, both.reference.lengths[None]]))[2, :2].abs()

    both.calibrate(prompts, responses)
    assert rho().min() > 0.8
    assert both.length_curve is None
    both.calibrate(prompts, responses, by_length=True)
    assert rho().max() < 0.1
    scores = both.score(prompts, responses).values
    assert torch.equal(scores, both.reference.scores)
    assert scores.std(dim=1, correction=0).tolist() == pytest.approx([1, 1], abs=1e-4)
    good = torch.tensor([" good" in response for response in responses])
    assert (scores[:, good].min(dim=1).values > scores[:, ~good].max(dim=1).values).all()


def test_the_length_curve_is_kept_on_disk_for_each_share(model, tmp_path):
    model.calibrate(PROMPTS, RESPONSES, by_length=True)
    model.save(tmp_path)
    whole = RewardModel.load(tmp_path, rows=8)
    assert torch.equal(whole.score(PROMPTS, RESPONSES).values, model.reference.scores)
    parts = [RewardModel.load(tmp_path, rows=8, share=(rank, 2)).score(PROMPTS, RESPONSES) for rank in (0, 1)]
    assert torch.equal(torch.cat([part.values for part in parts]), model.reference.scores)


def test_the_reference_is_read_without_loading_a_member(model, folder):
    assert is_reward_model(folder)
    shutil.rmtree(folder / "member_1")
    assert torch.equal(read_reference(folder).scores, model.reference.scores)


def test_a_model_in_bfloat16_is_near_the_one_in_float32(folder):
    exact, coarse = (
        RewardModel.load(folder, precision=p).score(PROMPTS, RESPONSES).values for p in ("float32", "bfloat16")
    )
    assert coarse.dtype == torch.float32
    assert 0 < (exact - coarse).abs().mean() < 0.1


def test_five_heads_are_five_models_with_the_same_weights(tokenizer):
    torch.manual_seed(3)
    together = RewardHeads(make_encoder(tokenizer), 5)
    apart = []
    for k in range(5):
        one = RewardHeads(make_encoder(tokenizer), 1)
        with torch.no_grad():
            one.heads.weight.copy_(together.heads.weight[k : k + 1])
            one.heads.bias.copy_(together.heads.bias[k : k + 1])
        apart.append(one)
    scores = []
    for members in ([together], apart):
        model = RewardModel(members, [tokenizer] * len(members), 32).to("cpu")
        model.calibrate(PROMPTS, RESPONSES)
        scores.append(model.score(PROMPTS, RESPONSES).values)
    torch.testing.assert_close(*scores, rtol=0, atol=1e-5)


def test_a_published_model_alone_scores_in_its_own_unit(tmp_path):
    from transformers import AutoModelForSequenceClassification

    path = published_folder(tmp_path)
    model = RewardModel.published(path, field="score_pairs.model")
    logits = AutoModelForSequenceClassification.from_pretrained(path).eval()
    ids = torch.tensor([model.tokenizers[0](PROMPTS[0] + RESPONSES[0])["input_ids"]])
    with torch.no_grad():
        torch.testing.assert_close(
            model.score(PROMPTS[:1], RESPONSES[:1]).values, logits(input_ids=ids).logits, rtol=0, atol=1e-5
        )


# Folders that are not right


def _keep(path, heads):
    save_file({name: value[:heads].contiguous() for name, value in load_file(path).items()}, path)


def _swap_words(folder):
    file = folder / "tokenizer.json"
    tree = json.loads(file.read_text())
    vocabulary = tree["model"]["vocab"]
    vocabulary["good"], vocabulary["bad"] = vocabulary["bad"], vocabulary["good"]
    file.write_text(json.dumps(tree))


def _new_kind(folder):
    settings = json.loads((folder / "reward.json").read_text())
    settings["members"][1]["kind"] = "forest"
    (folder / "reward.json").write_text(json.dumps(settings))


def _cut(path):
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize(
    ("spoil", "place", "words"),
    [
        (lambda f: (f / "reward.json").unlink(), "", "holds no reward.json: not a reward model; make one with"),
        (lambda f: (f / "calibration.safetensors").unlink(), "", "holds no calibration.safetensors"),
        (lambda f: _cut(f / "reward.json"), "reward.json", "is damaged"),
        (lambda f: _cut(f / "calibration.safetensors"), "calibration.safetensors", "is damaged"),
        (lambda f: _keep(f / "calibration.safetensors", 2), "calibration.safetensors", "holds 2 of 3 heads: fit the model"),
        (lambda f: _keep(f / "member_0/heads.safetensors", 1), "member_0/heads.safetensors", "heads are missing; fit"),
        (lambda f: _cut(f / "member_1/heads.safetensors"), "member_1/heads.safetensors", "is damaged"),
        (lambda f: _cut(f / "member_1/model.safetensors"), "member_1", "a member is missing or damaged"),
        (lambda f: shutil.rmtree(f / "member_1"), "member_1", "a member is missing or damaged"),
        (lambda f: _swap_words(f / "member_0"), "member_0", "the tokenizer there is not the one this reward model was saved with"),
        (_new_kind, "member_1", "a member of kind 'forest' is not known to this version"),
    ],
)  # fmt: skip
def test_a_spoilt_folder_is_refused_in_one_line_that_says_where(folder, spoil, place, words):
    spoil(folder)
    with pytest.raises(UserError) as raised:
        RewardModel.load(folder)
    line = str(raised.value)
    assert str(folder / place) in line
    assert words in line
    assert "\n" not in line


def test_members_of_two_tokenizers_read_their_own(tmp_path, tokenizer):
    other = Reviews().tokenizer()
    other.chat_template = "{% for m in messages %}{{ m.content }} {% endfor %}"
    torch.manual_seed(1)
    members = [RewardHeads(make_encoder(tokenizer), 1) for _ in range(2)]
    members[1].load_state_dict(members[0].state_dict())
    model = RewardModel(members, [tokenizer, other], 32).to("cpu")
    # Swapped words in a text would be the same token either way; a space joins prompt and response here.
    glued = model.read(["the"], ["room"]).values
    assert glued[0, 0] != glued[1, 0]
    model.calibrate(PROMPTS, RESPONSES)
    model.save(tmp_path)
    assert torch.equal(RewardModel.load(tmp_path).score(PROMPTS, RESPONSES).values, model.reference.scores)


def test_a_fit_that_calibrates_by_length_says_so_on_disk(tmp_path):
    source = encoder_folder(tmp_path / "encoder")
    model = fit(source, make_pairs(), length_calibration=True)
    model.save(tmp_path / "reward")
    assert RewardModel.load(tmp_path / "reward").length_curve is not None
    assert fit(source, make_pairs()).length_curve is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_head_that_gives_no_numbers_is_not_told_to_be_fitted_longer(model, value):
    with torch.no_grad():
        model.members[0].heads.weight[1] = value
    with pytest.raises(UserError, match=r"reward heads \[1\] give scores that are not finite: weights are damaged"):
        model.calibrate(PROMPTS, RESPONSES)
