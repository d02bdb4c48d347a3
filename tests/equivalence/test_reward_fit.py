"""A reward fit stopped anywhere, or shared by processes, comes to the same model."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file

from framework.ensembles import Averaged, Full, Lora, SharedEncoder, Single
from framework.training.data_parallel import Shard
from framework.training.engine import Optimizer
from framework.training.fit import FitCheckpoints
from framework.training.odin import Odin
from tests.tiny_reward import encoder_folder, fit, fit_in, make_pairs, same, weights

PAIRS = make_pairs()
CASES: dict[str, dict[str, Any]] = {
    "single": {"ensemble": Single(), "epochs": 2},
    "shared": {"ensemble": SharedEncoder(heads=3, dropout=0.2)},
    "full": {"ensemble": Full(members=2)},
    "averaged": {"ensemble": Averaged(members=2)},
    "lora": {"ensemble": Lora(members=2, rank=2), "epochs": 2},
    "odin": {"ensemble": SharedEncoder(heads=2), "odin": Odin()},
}


class _PowerCutError(Exception):
    pass


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """An encoder with dropout of its own, whose draws must not depend on where a fit began."""
    return encoder_folder(tmp_path_factory.mktemp("bert"), "bert")


@pytest.mark.parametrize("case", CASES)
def test_a_stop_at_any_step_and_another_start_leave_no_trace(source, tmp_path, case):
    seen: list[tuple[int, int]] = []
    undisturbed = fit(source, PAIRS, setting={"progress": lambda *a: seen.append(a[:2])}, **CASES[case])
    total = seen[-1][1]
    assert total == len(seen) >= 5
    for stop in range(1, total + 1):
        folder, again = tmp_path / str(stop), []

        def cut(done: int, _total: int, _figures: dict[str, float], stop: int = stop) -> None:
            if done == stop:
                raise _PowerCutError

        with pytest.raises(_PowerCutError):
            fit_in(folder, source, PAIRS, cut, **CASES[case])
        model = fit_in(folder, source, PAIRS, lambda *a, again=again: again.append(a[0]), **CASES[case])
        assert same(model, undisturbed), stop
        # It went on and did not begin again; the last save may lie one step back.
        assert (again[0] if again else total + 1) >= stop - 1
        assert not again or again[-1] == total


def test_a_fit_that_was_stopped_again_and_again(source, tmp_path):
    undisturbed, stops = fit(source, PAIRS, **CASES["full"]), 0
    while stops < 20:
        taken: list[int] = []

        def cut(done: int, *_: object, taken: list[int] = taken) -> None:
            taken.append(done)
            if len(taken) == 3:
                raise _PowerCutError

        try:
            model = fit_in(tmp_path, source, PAIRS, cut, **CASES["full"])
            break
        except _PowerCutError:
            stops += 1
    assert stops >= 3
    assert same(model, undisturbed)


def test_a_fit_whose_parts_are_all_there_takes_no_step(source, tmp_path):
    first = fit_in(tmp_path, source, PAIRS, **CASES["averaged"])
    steps: list[int] = []
    assert same(fit_in(tmp_path, source, PAIRS, lambda *a: steps.append(a[0]), **CASES["averaged"]), first)
    assert steps == []


def test_saves_change_no_number(source, tmp_path):
    often = fit_in(tmp_path / "often", source, PAIRS, save_every=1, **CASES["single"])
    assert same(often, fit(source, PAIRS, **CASES["single"]))
    assert not list((tmp_path / "often").rglob("*writing*"))


# Data parallel. Dropout differs from process to process, so the encoder has none. Adam makes a full step of
# the rounding of a gradient that is nothing else (a bias cancels in every pair): a larger eps keeps it rounding.

SHARED = ("single", "full", "lora", "odin")
ROUNDING_STAYS = {"optimizer": Optimizer(lr=1e-2, eps=1e-2)}


def _work(rank: int, size: int, source: str, folder: str) -> None:
    """What each process does: every case one after the other, and its weights in a file."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)
    for case in SHARED:
        setting = {"shard": Shard(rank, size), "checkpoints": FitCheckpoints(Path(folder, case), writes=rank == 0)}
        model = fit(source, PAIRS, setting=setting, **ROUNDING_STAYS, **CASES[case])
        save_file({k: v.contiguous() for k, v in weights(model).items()}, Path(folder, f"{case}-{rank}"))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def plain_source(tmp_path_factory):
    return encoder_folder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def together(plain_source, tmp_path_factory):
    """The folder where two processes left what they came to."""
    folder = tmp_path_factory.mktemp("together")
    torch.multiprocessing.spawn(_work, args=(2, plain_source, str(folder)), nprocs=2)
    return folder


@pytest.mark.parametrize("case", SHARED)
def test_two_processes_come_to_the_model_of_one(plain_source, together, case):
    alone = weights(fit(plain_source, PAIRS, **ROUNDING_STAYS, **CASES[case]))
    first, second = (load_file(together / f"{case}-{rank}") for rank in (0, 1))
    assert first.keys() == second.keys() == alone.keys()
    for name, value in alone.items():
        assert torch.equal(first[name], second[name]), name
        # Reference scores are in standard deviations: the raw difference, magnified.
        near = 1e-4 if name == "reference" else 1e-5
        torch.testing.assert_close(first[name], value, rtol=0, atol=near, msg=lambda m, n=name: f"{n}: {m}")


def test_what_two_processes_began_one_goes_on_with(plain_source, together):
    # A finished part is loaded, whoever fitted it.
    steps: list[int] = []
    case = ROUNDING_STAYS | CASES["full"]
    model = fit_in(together / "full", plain_source, PAIRS, lambda *a: steps.append(a[0]), **case)
    assert steps == []
    assert all(torch.equal(value, load_file(together / "full-0")[name]) for name, value in weights(model).items())
