"""Rewards that compare with answers of the reference policy: how the answers are drawn, and runs that use them."""

import json

import pytest
import torch

from actors.group import InlineGroup
from actors.reference import ReferenceRole, ReferenceWorker
from framework.generation.sampler import SampleRequest, TorchSampler
from framework.gold.rule import Rule
from framework.models.causal import CausalPolicy
from framework.models.tokenizer import load_tokenizer
from framework.types import Scores
from jobs.run_folder import RunContext, resume_run
from tests.tiny import contents, make_tiny, merged

PAR = [{"kind": "length_calibration"}, {"kind": "par", "answers": 2}]
TRAIN = {"transforms": PAR, "missing_end_penalty": 0}  # most of the tiny policy's responses are cut off


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def rollout(tiny):
    folder = tiny.parents["policy"].path
    sampler = TorchSampler(CausalPolicy.load(folder), load_tokenizer(folder), seed=0, max_new_tokens=8)
    prompts = tiny.cfg.world.prompts("train")[:7]
    request = SampleRequest(prompts=prompts, positions=range(7), samples_per_prompt=2, step=3, policy_version=0)
    return sampler.sample(request)


def role(tiny, replicas=1, rows=4, seed=0):
    def worker():
        return ReferenceWorker(
            str(tiny.parents["policy"].path),
            rows,
            temperature=1.0,
            precision="float32",
            seed=seed,
            max_new_tokens=8,
            instruction=None,
        )

    return ReferenceRole(InlineGroup("reference", worker, replicas=replicas), rows)


def test_every_prompt_is_answered_once_per_group_and_count(tiny, rollout):
    answers = role(tiny).answers(rollout, count=3).get()
    assert len(answers) == 7 * 3
    assert answers.group.tolist() == [group for group in range(7) for _ in range(3)]
    assert answers.prompts == tuple(prompt for prompt in rollout.prompts[::2] for _ in range(3))
    assert len(set(answers.responses)) > 7
    assert answers.step == 3


def test_answers_do_not_depend_on_the_number_of_workers(tiny, rollout):
    one, three = (role(tiny, replicas).answers(rollout, count=2).get() for replicas in (1, 3))
    assert one.responses == three.responses
    assert torch.equal(one.group, three.group)


def test_answers_are_drawn_apart_from_the_rollout_and_for_each_step_and_seed(tiny, rollout):
    """The same weights and prompts here: only the random numbers can differ."""
    answers = role(tiny).answers(rollout, count=2).get().responses
    later = type(rollout)(**{**vars(rollout), "step": 4})
    assert answers != rollout.responses
    assert answers == role(tiny).answers(rollout, count=2).get().responses
    assert answers != role(tiny).answers(later, count=2).get().responses
    assert answers != role(tiny, seed=1).answers(rollout, count=2).get().responses


# Whole runs


def run(tiny, out, **changes):
    tiny.run(out, **merged({"train": TRAIN}, changes))
    return contents(out)


def metrics(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def undisturbed(tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "train"
    return run(tiny, out), metrics(out)


def test_the_policy_is_paid_a_probability_and_the_proxy_stays_what_it_was(tiny, undisturbed, tmp_path):
    run(tiny, tmp_path / "plain", train={"transforms": []})
    plain, compared = metrics(tmp_path / "plain"), undisturbed[1]
    assert all(0 < record["reward"] < 1 for record in compared)
    assert all(record["reward"] == record["proxy"] for record in plain)
    assert plain[0]["proxy"] == compared[0]["proxy"]  # step 0 was sampled before any update
    assert plain[-1]["proxy"] != compared[-1]["proxy"]  # the updates differ


def test_at_the_start_policy_and_answers_are_evenly_matched(undisturbed):
    """Step 0 samples the policy that answers: the probability of beating it is a half, but for luck."""
    assert abs(undisturbed[1][0]["reward"] - 0.5) < 0.25


def test_a_stop_and_a_resume_leave_no_trace(tiny, undisturbed, tmp_path):
    out, asked = tmp_path / "train", iter(range(100))
    context = RunContext(stop_asked=lambda: next(asked) >= 5)
    assert tiny.run(out, context, train=TRAIN).ended is None
    assert resume_run(out, RunContext()).ended == "all steps"
    assert contents(out) == undisturbed[0]


def test_two_scorer_replicas_equal_one(tiny, undisturbed, tmp_path):
    layout = tmp_path / "two.yaml"
    layout.write_text(
        "roles:\n  policy: {cpus: 0.25}\n  reference: {cpus: 0.25, replicas: 2}\n"
        "  reward: {cpus: 0.25, replicas: 2}\n  gold: {cpus: 0.25}\n"
    )
    assert run(tiny, tmp_path / "two", cluster=str(layout)) == undisturbed[0]


def test_gold_still_reaches_no_weight(tiny, undisturbed, tmp_path, monkeypatch):
    class Noise:
        def score(self, prompts, responses):
            return Scores(torch.randn(len(prompts)) * 1e3)

    monkeypatch.setattr(Rule, "build", lambda self, device: Noise())
    noisy = run(tiny, tmp_path / "noise")
    weights = [name for name in undisturbed[0] if "checkpoints" in name]
    assert weights
    assert all(noisy[name] == undisturbed[0][name] for name in weights)
    assert noisy["metrics.jsonl"] != undisturbed[0]["metrics.jsonl"]


def test_without_a_comparison_the_reference_samples_nothing(tiny, tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("sampled without need")

    monkeypatch.setattr(ReferenceWorker, "answers", refuse)
    run(tiny, tmp_path / "clipped", train={"transforms": [{"kind": "clip"}], "steps": 2})
