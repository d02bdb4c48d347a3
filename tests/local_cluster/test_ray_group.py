import contextlib
import os
import signal
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from actors.group import InlineGroup, RayGroup, failure_in_ray
from cluster.placement import Slot, place
from cluster.plan import Bundle
from framework.errors import RunError, UserError
from framework.types import Rows

pytestmark = pytest.mark.ray


@dataclass(frozen=True)
class Batch(Rows):
    x: Tensor
    names: tuple[str, ...]


class TwoPartError(Exception):
    """Cannot be rebuilt from a pickle, as many libraries' errors cannot."""

    def __init__(self, code, text):
        super().__init__(f"{code}: {text}")


UNIT = 4


class Toy:
    def __init__(self, width):
        if width == 0:
            raise OSError("no such weights")
        self.weight = torch.randn(width, width, generator=torch.Generator().manual_seed(1))

    def score(self, batch):
        """A forward pass for every `UNIT` rows, as real workers make them: same passes, same bits."""
        return torch.cat([torch.tanh(few @ self.weight) for few in batch.x.split(UNIT)])

    def load(self, folder):
        """Weights of another size, told by the folder's name."""
        self.__init__(int(folder))

    def take_place(self, rows, share):
        self.rank, self.size = share

    def count_together(self, batch, meet):
        """Rows over all workers, counted in a collective: it ends once every worker has come."""
        dist.init_process_group("gloo", init_method=f"file://{meet}", rank=self.rank, world_size=self.size)
        total = torch.tensor([len(batch)])
        dist.all_reduce(total)
        dist.destroy_process_group()
        return total

    def user_mistake(self):
        raise UserError("column 'text' is missing: rename it")

    def bug(self):
        raise TwoPartError(7, "deep down")

    def unsendable(self):
        return lambda: None

    def die(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def sleep(self, seconds):
        time.sleep(seconds)

    def threads(self):
        return torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]

    def process(self):
        return os.getpid()


def batch(rows, width=32):
    x = torch.randn(rows, width, generator=torch.Generator().manual_seed(rows))
    return Batch(x, tuple(str(i) for i in range(rows)))


@contextlib.contextmanager
def opened(role="reward", width=32, replicas=1, threads=1, **options):
    """A group of toys in a placement of its own, for the length of a `with` block."""
    run = f"run-{uuid.uuid4().hex[:8]}"
    names = [role] if replicas == 1 else [f"{role}-{rank}" for rank in range(replicas)]
    layout = [Bundle(name, role, rank, 0.25, 0, threads) for rank, name in enumerate(names)]
    with place(layout, run, "PACK", 30) as slots:
        group = RayGroup(role, Toy, (width,), slots[role], namespace=run, **options)
        try:
            yield group
        finally:
            group.close()


@pytest.fixture(scope="module")
def single(ray_session):
    """One worker, for tests that leave it as it was."""
    with opened(call_timeout_seconds=60) as group:
        yield group


@pytest.fixture(scope="module")
def pair(ray_session):
    """Two workers, for tests that leave them as they were."""
    with opened(replicas=2, call_timeout_seconds=60) as group:
        yield group


def test_inline_and_ray_and_replicas_give_the_same_bits(single, pair):
    rows = batch(11)
    inline = InlineGroup("reward", Toy, (32,)).scatter("score", rows, unit=UNIT, join=torch.cat).get()
    for group in (single, pair):
        assert torch.equal(group.scatter("score", rows, unit=UNIT, join=torch.cat).get(), inline)


def test_a_collective_ends_where_there_are_fewer_rows_than_workers(ray_session, tmp_path):
    with opened(replicas=2, call_timeout_seconds=60) as group:
        group.divide("take_place", batch(0), join=len).get()
        for rows in (3, 0):
            meet = str(tmp_path / f"meet-{rows}")
            counted = group.scatter_to_all("count_together", batch(rows), meet, unit=UNIT, join=torch.cat)
            assert counted.get().tolist() == [rows, rows]


def test_results_are_tensors_that_may_be_written_to(single):
    result = single.call("score", batch(20_000)).get()  # above the limit for results that travel with the reply
    kept = result.clone()
    result += 1
    assert torch.equal(result, kept + 1)


def test_replicas_are_processes_that_work_at_the_same_time(pair):
    assert len({*pair.call_all("process").get(), os.getpid()}) == 3
    begin = time.monotonic()
    pending = pair.call_all("sleep", 0.5)
    pending.get()
    assert time.monotonic() - begin < 0.9
    assert 0.5 <= pending.busy_seconds < 0.9


def test_actors_bear_their_names_in_the_namespace_of_the_run(ray_session, pair):
    found = {actor["name"]: actor["namespace"] for actor in ray_session.util.list_named_actors(all_namespaces=True)}
    assert found["reward-0"] == found["reward-1"] and found["reward-0"].startswith("run-")
    slot = Slot("reward-0", "reward", 0, 0, 0)
    with pytest.raises(RunError, match="reward-0 already lives in namespace"):
        RayGroup("reward", Toy, (2,), [slot], namespace=found["reward-0"])


def test_actors_show_their_role(pair):
    """Ray writes the class into the dashboard and the title of the process."""
    titles = [Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8") for pid in pair.call_all("process").get()]
    assert {title.rstrip("\0") for title in titles} == {"ray::RewardHost"}


def test_thread_counts_reach_torch_and_the_environment(single):
    assert single.call("threads").get() == (1, "1")
    with opened(threads=2) as group:
        assert group.call("threads").get(60) == (2, "2")


def test_peak_memory_is_that_of_the_workers(pair):
    assert all(50 < peak < 2000 for peak in pair.call_all("peak_rss_mb").get())


def test_a_goldilocks_error_arrives_as_itself(single):
    with pytest.raises(UserError) as caught:
        single.call("user_mistake").get()
    assert str(caught.value) == "column 'text' is missing: rename it"
    assert type(caught.value) is UserError and caught.value.exit_code == 2
    assert single.call("score", batch(2)).get().shape == (2, 32)


def test_any_other_error_names_worker_host_and_root_cause(pair):
    with pytest.raises(RunError) as caught:
        pair.call("bug").get()
    message = str(caught.value)
    assert message.startswith("reward-0.bug failed on ") and message.endswith("TwoPartError: 7: deep down")
    assert "\n" not in message
    assert "raise TwoPartError" in caught.value.__notes__[0]
    assert "raise TwoPartError" in str(caught.value.__cause__)


def test_a_result_that_cannot_travel_is_reported_like_any_error(single):
    for group in (single, InlineGroup("reward", Toy, (32,))):
        with pytest.raises(RunError, match=r"^reward\.unsendable failed on .*pickle"):
            group.call("unsendable").get()


def test_memory_trouble_and_lost_nodes_are_told_apart(ray_session):
    kinds = ray_session.exceptions

    def told(error):
        return str(failure_in_ray(error, "reward.score", {}, 1))

    assert "host ran out of memory" in told(kinds.OutOfMemoryError("11 of 12 GB"))
    lost = kinds.RayActorError("", "The actor died because its node has died. Node Id: 1")
    assert told(lost) == "reward died in score: its node was lost"


def test_no_answer_in_time_names_role_method_and_deadline(single):
    with pytest.raises(RunError, match=r"^reward\.sleep gave no answer within 0\.2 s$"):
        single.call("sleep", 0.5).get(0.2)


def test_a_killed_worker_is_named_and_every_later_call_says_so(ray_session):
    with opened(role="policy") as group:
        group.ready().get(60)
        for method in ("die", "threads"):
            begin = time.monotonic()
            with pytest.raises(RunError, match=f"^policy died in {method} on .*killed or crashed") as caught:
                group.call(method).get(60)
            assert "\n" not in str(caught.value) and time.monotonic() - begin < 20


def test_a_rebuildable_worker_comes_back_and_its_brother_is_not_touched(ray_session):
    with opened(replicas=2, restarts=1) as group:
        before = group.scatter("score", batch(8), unit=UNIT, join=torch.cat).get(60)
        first, second = group.call_all("process").get()
        os.kill(second, signal.SIGKILL)
        assert torch.equal(group.scatter("score", batch(8), unit=UNIT, join=torch.cat).get(60), before)
        assert group.call("process").get() == first
        os.kill(group.call_all("process").get()[1], signal.SIGKILL)
        with pytest.raises(RunError, match=r"^reward-1 died in score"):
            group.scatter("score", batch(8), unit=UNIT, join=torch.cat).get(60)


def test_a_worker_that_is_built_again_has_the_weights_that_its_group_has_loaded(ray_session):
    with opened(restarts=1) as group:
        before = group.scatter("score", batch(8), unit=UNIT, join=torch.cat).get(60)
        group.load("16").get(60)
        os.kill(group.call("process").get(), signal.SIGKILL)
        assert before.shape == (8, 32)
        assert group.call("score", batch(8, width=16)).get(60).shape == (8, 16)


def test_a_worker_that_cannot_be_built_shows_the_root_cause(ray_session):
    with opened(role="gold", width=0) as group:
        for pending in (group.ready(), group.call("threads")):
            with pytest.raises(RunError, match=r"^gold\.\w+ failed on .*OSError: no such weights"):
                pending.get(60)
