import pickle
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from actors.group import Done, InlineGroup, covered_seconds, shares
from actors.spawn import pack, unpack
from framework.errors import RunError, UserError
from framework.types import Rows


@dataclass(frozen=True)
class Batch(Rows):
    x: Tensor
    names: tuple[str, ...]


class Toy:
    def __init__(self, factor=2.0):
        if factor == 0:
            raise OSError("no such weights")
        self.factor = factor
        self.seen = []

    def double(self, batch, offset=0.0):
        self.seen.append(batch.names)
        return batch.x * self.factor + offset

    def rows_seen(self):
        return self.seen

    def grow(self, batch):
        batch.x.add_(1)
        self.total = getattr(self, "total", torch.zeros(3)).add_(1)
        return self.total

    def user_mistake(self):
        raise UserError("column 'text' is missing: rename it")

    def bug(self):
        try:
            raise ZeroDivisionError("deep down")
        except ZeroDivisionError as error:
            raise ValueError("on the surface") from error

    def no_memory(self):
        raise MemoryError("tried 9 TB")

    def threads(self):
        return torch.get_num_threads()


def batch(rows):
    return Batch(torch.arange(float(rows)), tuple(str(i) for i in range(rows)))


@pytest.mark.parametrize("rows", range(0, 12))
@pytest.mark.parametrize("unit", [1, 2, 3, 5])
@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_shares_cover_the_rows_in_order_and_cut_only_between_units(rows, unit, workers):
    cut = shares(rows, unit, workers)
    assert [i for start, stop in cut for i in range(start, stop)] == list(range(rows))
    assert all(start % unit == 0 for start, stop in cut if stop > start)
    assert len(cut) == workers
    units = [-(-(stop - start) // unit) for start, stop in cut]
    assert max(units) - min(units) <= 1 and units == sorted(units, reverse=True)


def test_covered_seconds_counts_overlap_once():
    assert covered_seconds([(0, 2), (1, 3), (5, 6), (5.2, 5.4)]) == pytest.approx(4)
    assert covered_seconds([]) == 0


def test_scatter_gives_each_worker_its_rows_and_joins_in_row_order():
    group = InlineGroup("reward", Toy, (2.0,), replicas=3)
    pending = group.scatter("double", batch(10), 1.0, unit=4, join=torch.cat)
    assert torch.equal(pending.get(), torch.arange(10.0) * 2 + 1)
    seen = group.call_all("rows_seen").get()
    assert [names[0] for names in seen] == [tuple("0123"), tuple("4567"), tuple("89")]


def test_workers_without_rows_are_left_alone_and_no_rows_still_have_a_result():
    group = InlineGroup("reward", Toy, replicas=3)
    group.scatter("double", batch(2), unit=4, join=torch.cat).get()
    assert [len(seen) for seen in group.call_all("rows_seen").get()] == [1, 0, 0]
    assert group.scatter("double", batch(0), unit=4, join=torch.cat).get().shape == (0,)


def test_a_scatter_to_all_calls_every_worker_and_changes_no_result():
    group = InlineGroup("reward", Toy, replicas=3)
    for rows in (2, 0):
        result = group.scatter_to_all("double", batch(rows), unit=4, join=torch.cat).get()
        assert torch.equal(result, torch.arange(float(rows)) * 2)
    assert group.call_all("rows_seen").get() == [[("0", "1"), ()], [(), ()], [(), ()]]


def test_replicas_do_not_change_the_rows_of_a_pass():
    one = InlineGroup("reward", Toy).scatter("double", batch(9), unit=2, join=torch.cat).get()
    two = InlineGroup("reward", Toy, replicas=2).scatter("double", batch(9), unit=2, join=torch.cat).get()
    assert torch.equal(one, two)


def test_call_asks_worker_0_and_call_all_everyone():
    group = InlineGroup("policy", Toy, replicas=2)
    group.call("double", batch(1)).get()
    assert group.call_all("rows_seen").get() == [[("0",)], []]


def test_busy_seconds_are_known_after_get_and_bounded_by_the_call():
    pending = InlineGroup("policy", Toy, replicas=2).call_all("threads")
    assert pending.busy_seconds == 0
    assert pending.get() == [1, 1]
    assert 0 < pending.busy_seconds < 1 and len(pending.spans) == 2


def test_threads_are_set_before_each_call():
    before = torch.get_num_threads()
    try:
        one, two = InlineGroup("policy", Toy), InlineGroup("gold", Toy, threads=2)
        assert (one.call("threads").get(), two.call("threads").get(), one.call("threads").get()) == (1, 2, 1)
    finally:
        torch.set_num_threads(before)


def test_a_goldilocks_error_arrives_as_itself_at_get():
    pending = InlineGroup("gold", Toy).call("user_mistake")
    with pytest.raises(UserError) as caught:
        pending.get()
    assert str(caught.value) == "column 'text' is missing: rename it" and caught.value.exit_code == 2
    assert "gold.user_mistake" in caught.value.__notes__[0]


def test_any_other_error_is_one_line_with_worker_host_and_root_cause():
    with pytest.raises(RunError) as caught:
        InlineGroup("reward", Toy, replicas=2).call("bug").get()
    message = str(caught.value)
    assert message.startswith("reward-0.bug failed on ") and message.endswith("ZeroDivisionError: deep down")
    assert isinstance(caught.value.__cause__, ValueError)
    assert "on the surface" in caught.value.__notes__[0]


def test_running_out_of_memory_is_told_apart():
    with pytest.raises(RunError, match="out of host memory"):
        InlineGroup("reward", Toy).call("no_memory").get()


def test_a_worker_that_cannot_be_built_says_why_at_ready_and_at_every_call():
    group = InlineGroup("reward", Toy, (0,))
    for pending in (group.ready(), group.call("threads")):
        with pytest.raises(RunError, match="OSError: no such weights"):
            pending.get()
    assert InlineGroup("reward", Toy).ready().get() is None


def test_peak_memory_is_answered_for_every_worker():
    assert InlineGroup("gold", Toy).call("peak_rss_mb").get() > 50


def test_done_is_a_result_without_work():
    assert Done(3).get() == 3 and Done(3).busy_seconds == 0


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(3, 4),
        torch.randn(4, 3).T,
        torch.randn(2, 2).bfloat16(),
        torch.tensor([True, False]),
        torch.tensor(7),
        torch.empty(0, 5),
        torch.arange(6).reshape(2, 3)[:, 1:],
    ],
    ids=lambda t: f"{t.dtype}{tuple(t.shape)}",
)
def test_packed_tensors_come_back_equal_and_safe_to_write(tensor):
    header, arrays = pack({"t": tensor})
    for array in arrays:
        array.flags.writeable = False  # as Ray hands them over
    back = unpack((pickle.loads(pickle.dumps(header)), arrays))["t"]
    assert back.dtype == tensor.dtype and torch.equal(back, tensor)
    before = tensor.clone()
    back.zero_()
    assert torch.equal(tensor, before)


def test_inline_workers_share_no_memory_with_the_driver():
    group, mine = InlineGroup("policy", Toy), batch(2)
    first, second = group.call("grow", mine).get(), group.call("grow", mine).get()
    assert first.tolist() == [1, 1, 1] and second.tolist() == [2, 2, 2]
    assert mine.x.tolist() == [0, 1]


def test_packing_drops_gradient_history():
    weight = torch.nn.Parameter(torch.ones(2))
    back = unpack(pack(weight * 2))
    assert not back.requires_grad and back.tolist() == [2, 2]
