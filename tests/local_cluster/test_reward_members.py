"""An ensemble spread over Ray actors, member by member: the numbers of one worker, to the bit."""

import pytest
import torch

from actors.group import InlineGroup, RayGroup
from actors.reward import RewardRole, RewardWorker
from cluster.placement import place
from cluster.plan import Bundle
from framework.ensembles import Full
from framework.errors import RunError
from framework.models.reward_model import RewardModel
from framework.types import Answers
from tests.tiny_reward import encoder_folder, fit, make_pairs

pytestmark = pytest.mark.ray

PAIRS = make_pairs()
ANSWERS = Answers(
    tuple(pair.prompt for pair in PAIRS),
    tuple(pair.chosen for pair in PAIRS),
    torch.arange(len(PAIRS)) % 3 > 0,
    torch.arange(len(PAIRS)),
    step=3,
)


class Counting(RewardWorker):
    """A reward worker that tells how many heads it has loaded."""

    def heads_held(self):
        return self._held[1].num_heads if self._held else 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    base = tmp_path_factory.mktemp("members")
    fit(encoder_folder(base / "encoder"), PAIRS, ensemble=Full(members=3)).save(base / "reward")
    return str(base / "reward")


@pytest.fixture(scope="module")
def divided(ray_session, folder):
    """Three actors, a member each."""
    layout = [Bundle(f"reward-{rank}", "reward", rank, 0.25, 0, 1) for rank in range(3)]
    with place(layout, "run-members", "PACK", 30) as slots:
        args = (folder, 8, 0.05, "float32", "members")
        group = RayGroup("reward", Counting, args, slots["reward"], namespace="run-members", call_timeout_seconds=120)
        yield group
        group.close()


def test_three_actors_give_the_bits_of_one_worker(divided, folder):
    assert divided.call_all("heads_held").get() == [0, 0, 0]  # nothing is loaded before it is known what
    one = RewardRole(InlineGroup("reward", RewardWorker, (folder, 8, 0.05, "float32")), rows=8)
    three = RewardRole(divided, rows=8, divide="members")
    scores = three.score(ANSWERS).get()
    assert scores.values.shape == (3, len(PAIRS))
    whole = RewardModel.load(folder, rows=8).score(ANSWERS.prompts, ANSWERS.responses, ANSWERS.ended.tolist())
    for other in (one.score(ANSWERS).get(), whole):
        assert torch.equal(scores.values, other.values)
        assert torch.equal(scores.distances, other.distances)
    assert torch.equal(scores.distance, one.score(ANSWERS).get().distance)
    assert torch.equal(three.reference().get().scores, one.reference().get().scores)


def test_each_actor_holds_its_member_only(divided):
    RewardRole(divided, rows=8, divide="members").score(ANSWERS.rows(0, 8)).get()
    assert divided.call_all("heads_held").get() == [1, 1, 1]


def test_an_error_of_a_share_reaches_the_caller_as_it_is(divided):
    long = Answers(("the room :",), (" fine" * 40,), torch.ones(1).bool(), torch.zeros(1).long(), step=3)
    with pytest.raises(RunError, match=r"reward: 1 of 1 texts are longer than the 32 tokens .*at step 3"):
        RewardRole(divided, rows=8, divide="members").score(long).get()
