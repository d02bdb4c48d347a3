"""Workers apart from any group: weights exchanged while they live, and weights that lie in parts."""

import contextlib

import pytest
import torch

from actors import policy as policy_module
from actors.policy import PolicyWorker
from actors.reference import ReferenceWorker
from actors.reward import RewardWorker
from actors.roles import ROLES
from framework.generation.sampler import SampleRequest
from framework.models.causal import CausalPolicy
from framework.models.tokenizer import load_tokenizer
from framework.training.torch_engine import TorchEngine
from framework.types import Answers
from tests.tiny import make_tiny
from tests.tiny_reward import encoder_folder, fit, make_pairs

REQUEST = SampleRequest(
    prompts=("the room :", "the food :"), positions=(0, 1), samples_per_prompt=2, step=0, policy_version=0
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def parents(tiny):
    return {name: parent.path for name, parent in tiny.parents.items()}


@pytest.fixture(scope="module")
def other(parents, tmp_path_factory):
    """A policy of the same shape with other weights."""
    folder = tmp_path_factory.mktemp("other")
    policy = CausalPolicy.load(parents["policy"])
    with torch.no_grad():
        for weight in policy.parameters():
            weight.mul_(1.1)
    policy.save(folder)
    load_tokenizer(parents["policy"]).save_pretrained(folder)
    return folder


def build(name, cfg, parents):
    worker = {"policy": PolicyWorker, "reference": ReferenceWorker, "reward": RewardWorker}[name]
    return worker(**ROLES[name].arguments(cfg, parents))


def test_a_reference_answers_as_a_fresh_worker_of_the_folder_that_it_has_loaded(tiny, parents, other):
    rollout = build("policy", tiny.cfg, parents).rollout(REQUEST)
    moved = build("reference", tiny.cfg, parents)
    before = moved.logprobs(rollout), moved.answers(rollout, 2).responses
    moved.load(str(other))
    fresh = build("reference", tiny.cfg, parents | {"reference": other})
    assert torch.equal(moved.logprobs(rollout), fresh.logprobs(rollout))
    assert torch.equal(moved.full_logprobs(rollout), fresh.full_logprobs(rollout))
    assert moved.answers(rollout, 2).responses == fresh.answers(rollout, 2).responses
    assert not torch.equal(moved.logprobs(rollout), before[0])
    assert moved.answers(rollout, 2).responses != before[1]


@pytest.mark.parametrize("divide", ["rows", "members"])
def test_a_reward_worker_answers_as_a_fresh_one_of_the_folder_that_it_has_loaded(tmp_path, divide):
    pairs = make_pairs()
    source = encoder_folder(tmp_path / "encoder")
    for seed in (0, 1):
        fit(source, pairs, seed=seed).save(tmp_path / str(seed))
    texts = tuple(p.prompt for p in pairs), tuple(p.chosen for p in pairs)
    answers = Answers(*texts, torch.arange(len(pairs)) % 3 > 0, torch.arange(len(pairs)), step=0)
    moved, fresh = (RewardWorker(str(tmp_path / str(i)), 8, 0.05, "float32", divide) for i in (0, 1))
    before = moved.score(answers)
    moved.load(str(tmp_path / "1"))
    assert torch.equal(moved.score(answers).values, fresh.score(answers).values)
    assert torch.equal(moved.score(answers).distances, fresh.score(answers).distances)
    assert torch.equal(moved.reference().scores, fresh.reference().scores)
    assert not torch.equal(moved.score(answers).values, before.values)


class InParts(TorchEngine):
    """Stands for a sharded engine: outside of its own passes and of `whole_weights` there is nothing to read."""

    def __init__(self, *args):
        super().__init__(*args)
        self.kept = [weight.data for weight in self.parameters]
        self.depth = 0
        self._hide()

    def _hide(self):
        for weight in self.parameters:
            weight.data = torch.empty(0)

    def _show(self):
        for weight, data in zip(self.parameters, self.kept, strict=True):
            weight.data = data

    @contextlib.contextmanager
    def whole_weights(self):
        self._show()
        self.depth += 1
        yield
        self.depth -= 1
        if not self.depth:
            self._hide()

    def __call__(self, *args):
        with self.whole_weights():
            return super().__call__(*args)

    def backward(self, loss):
        self._show()  # gradients take the shape of their weights
        super().backward(loss)

    def step(self):
        norm = super().step()
        self._hide()
        return norm


def test_a_policy_whose_weights_lie_in_parts_does_all_that_another_does(tiny, parents, monkeypatch, tmp_path):
    reference = build("reference", tiny.cfg, parents)
    plain = build("policy", tiny.cfg, parents)
    monkeypatch.setattr(policy_module, "TorchEngine", InParts)
    parts = build("policy", tiny.cfg, parents)
    assert not any(weight.numel() for weight in parts.policy.parameters())
    found = []
    for worker in (plain, parts):
        rollout = worker.rollout(REQUEST)
        exact = worker.exact_kl(rollout, reference.full_logprobs(rollout))
        shaped = tiny.cfg.train.shaping(rollout, reference.logprobs(rollout), torch.arange(4.0), 0.1)
        report = worker.update(tiny.cfg.train.advantage(shaped))
        folder = tmp_path / str(len(found))
        folder.mkdir()
        worker.save(str(folder))
        worker.load(str(folder))
        again = worker.rollout(REQUEST.model_copy(update={"policy_version": 1}))
        weights = {p.name: p.read_bytes() for p in folder.glob("*.safetensors")}
        found.append((rollout.responses, exact.tolist(), report.metrics, weights, again.responses))
    assert found[0] == found[1]
