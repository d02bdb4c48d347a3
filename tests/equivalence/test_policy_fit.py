"""Supervised fitting stopped anywhere, or shared by processes, comes to the same policy."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file

from framework.errors import RunError, UserError
from framework.models.causal import CausalPolicy
from framework.models.settings import TinyLlama
from framework.training.data_parallel import Shard
from framework.training.engine import Optimizer
from framework.training.fit import FitCheckpoints, FitSetting
from framework.training.policy_fit import FitPolicy, fit_policy
from framework.worlds.reviews import Reviews

WORLD = Reviews(corpus_size=50)
SETTINGS = FitPolicy(steps=9, batch=8, optimizer=Optimizer(lr=1e-2, warmup_steps=2, decay="linear"))


class _PowerCutError(Exception):
    pass


def _fit(settings: FitPolicy = SETTINGS, **setting: object) -> tuple[dict[str, torch.Tensor], float]:
    """The weights that a fit comes to, and its figure."""
    torch.manual_seed(0)
    tokenizer = WORLD.tokenizer()
    tiny = TinyLlama(hidden=16, layers=1, heads=2, intermediate=16)
    policy = CausalPolicy(tiny.build(len(tokenizer), tokenizer.pad_token_id, tokenizer.eos_token_id))
    # Dropout of its own, whose draws must not depend on where a fit began.
    policy.model.model.layers[0].self_attn.attention_dropout = 0.0 if "shard" in setting else 0.2
    figures = fit_policy(policy, tokenizer, WORLD.corpus(0), settings, FitSetting(seed=0, **setting), save_every=2)
    return policy.state_dict(), figures["loss"]


def _equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_stop_at_any_step_and_another_start_leave_no_trace(tmp_path):
    undisturbed, loss = _fit()
    for stop in range(1, SETTINGS.steps + 1):
        folder, again = FitCheckpoints(tmp_path / str(stop)), []

        def cut(done: int, *_: object, stop: int = stop) -> None:
            if done == stop:
                raise _PowerCutError

        with pytest.raises(_PowerCutError):
            _fit(checkpoints=folder, progress=cut)
        weights, found = _fit(checkpoints=folder, progress=lambda done, *_, again=again: again.append(done))
        assert _equal(weights, undisturbed) and found == loss, stop
        assert again[0] >= stop - 1 and again[-1] == SETTINGS.steps  # it went on, and did not begin again


def test_a_fit_that_is_done_takes_no_step(tmp_path):
    steps: list[int] = []
    first, _ = _fit(checkpoints=FitCheckpoints(tmp_path))
    again, _ = _fit(checkpoints=FitCheckpoints(tmp_path), progress=lambda done, *_: steps.append(done))
    assert _equal(first, again) and steps == []


@pytest.mark.parametrize("damage", [lambda data: data[:-1] + bytes([data[-1] ^ 128]), lambda data: data[:9]])
@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "state.json"])
def test_a_save_that_was_damaged_is_not_gone_on_from(tmp_path, name, damage):
    undisturbed, _ = _fit()
    folder, again = FitCheckpoints(tmp_path), []

    def cut(done: int, *_: object) -> None:
        if done == 5:
            raise _PowerCutError

    with pytest.raises(_PowerCutError):
        _fit(checkpoints=folder, progress=cut)
    (path,) = tmp_path.rglob(name)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(UserWarning, match="is damaged: policy is fitted from its beginning"):
        weights, _ = _fit(checkpoints=folder, progress=lambda done, *_: again.append(done))
    assert _equal(weights, undisturbed) and again[0] == 1


def test_weights_that_the_last_step_made_infinite_are_no_fit(tmp_path):
    hot = SETTINGS.model_copy(update={"steps": 1, "optimizer": Optimizer(lr=3e38)})
    with pytest.raises(RunError, match=r"sft, policy: .* is not finite, and is not saved; lower sft\.optimizer\.lr"):
        _fit(hot, checkpoints=FitCheckpoints(tmp_path))
    assert not list(tmp_path.rglob("state.json"))


def _work(rank: int, size: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)
    checkpoints = FitCheckpoints(Path(folder, "parts"), writes=rank == 0)
    weights, loss = _fit(shard=Shard(rank, size), checkpoints=checkpoints)
    save_file({name: value.clone() for name, value in weights.items()}, Path(folder, f"{rank}.safetensors"))
    Path(folder, f"{rank}.txt").write_text(repr(loss))
    dist.destroy_process_group()


def test_two_processes_come_to_the_policy_of_one(tmp_path):
    torch.multiprocessing.spawn(_work, args=(2, str(tmp_path)), nprocs=2)
    alone, loss = _fit(shard=Shard())
    first, second = (load_file(tmp_path / f"{rank}.safetensors") for rank in (0, 1))
    assert _equal(first, second)
    for name, value in alone.items():
        torch.testing.assert_close(first[name], value, rtol=0, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    for rank in (0, 1):
        assert float((tmp_path / f"{rank}.txt").read_text()) == pytest.approx(loss, rel=1e-5)


def test_a_batch_that_workers_cannot_share_is_refused():
    with pytest.raises(UserError, match=r"sft\.batch=8 does not divide into 3 workers: .*fit\.replicas"):
        _fit(shard=Shard(rank=0, size=3))


def test_a_fit_that_diverges_stops_with_its_step_and_rate():
    hot = SETTINGS.model_copy(update={"optimizer": Optimizer(lr=1e30)})
    with pytest.raises(RunError, match=r"^sft: the (loss|gradient) is .* at step \d of policy; lower sft\.opt"):
        _fit(hot)
