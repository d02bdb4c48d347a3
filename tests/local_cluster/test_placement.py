import os
import subprocess
import sys
import textwrap
import time
import uuid
from pathlib import Path

import pytest

from actors.group import RayGroup
from cluster.placement import inherited, place
from cluster.plan import Bundle, bundles
from cluster.session import connect, live_nodes
from cluster.spec import ClusterSpec, load_spec
from framework.errors import PlacementError

pytestmark = pytest.mark.ray
ROOT = Path(__file__).resolve().parents[2]


class Device:
    def visible(self):
        return os.environ.get("CUDA_VISIBLE_DEVICES")


def visible_devices(spec):
    """What each worker of the layout sees, by worker name."""
    run = f"run-{uuid.uuid4().hex[:8]}"
    seen = {}
    with place(bundles(spec), run, spec.strategy, 30) as slots:
        groups = [RayGroup(role, Device, (), slots[role], namespace=run) for role in spec.roles]
        for group in groups:
            names = [slot.name for slot in slots[group.role]]
            seen |= dict(zip(names, group.call_all("visible").get(60), strict=True))
            group.close()
    return seen


def test_a_group_that_holds_another_layout_is_not_sat_in(ray_session):
    with pytest.raises(PlacementError, match=r"cannot place one: .* started in no placement group"):
        inherited(bundles(load_spec("laptop")), "one")


def test_four_gpus_give_each_role_a_device_of_its_own(ray_session):
    seen = visible_devices(load_spec("four_gpu"))
    assert set(seen) == {"policy", "reference", "reward", "gold"}
    assert sorted(seen.values()) == ["0", "1", "2", "3"]


def test_fractions_share_one_device(ray_session):
    # Tasks instead of workers: they need no torch, and the bundle decides the device either way.
    look = ray_session.remote(lambda: os.environ["CUDA_VISIBLE_DEVICES"])
    with place(bundles(load_spec("one_gpu")), "run-fractions", "PACK", 30) as slots:
        tasks = [
            look.options(num_cpus=slot.cpus, num_gpus=slot.gpus, scheduling_strategy=slot.scheduling).remote()
            for role in slots
            for slot in slots[role]
        ]
        seen = ray_session.get(tasks, timeout=60)
    assert len(seen) == 4 and len(set(seen)) == 1


def test_replicas_have_devices_of_their_own_and_workers_without_a_share_see_none(ray_session):
    spec = ClusterSpec(
        name="x",
        roles={r: {"cpus": 0.5} for r in ("policy", "reference", "gold")}
        | {"reward": {"cpus": 0.5, "gpus": 1, "replicas": 2}},
    )
    seen = visible_devices(spec)
    assert {seen["reward-0"], seen["reward-1"]} < {"0", "1", "2", "3"} and seen["reward-0"] != seen["reward-1"]
    assert [seen[role] for role in ("policy", "reference", "gold")] == [""] * 3


def test_a_layout_that_can_never_fit_is_refused_at_once_with_both_numbers(ray_session):
    layout = [Bundle("policy", "policy", 0, cpus=1, gpus=8)]
    begin = time.monotonic()
    with pytest.raises(PlacementError) as caught, place(layout, "run-large", "PACK", 30):
        pass
    assert time.monotonic() - begin < 2
    message = str(caught.value)
    assert "policy asks for 1 CPU and 8 GPUs" in message and "has 8 CPUs and 4 GPUs" in message
    assert "\n" not in message


def test_a_busy_cluster_is_waited_for_and_then_reported_with_what_is_free(ray_session):
    mine, theirs = [Bundle("gold", "gold", 0, 1, 3)], [Bundle("other", "other", 0, 1, 3)]
    with place(theirs, "run-other", "PACK", 30):
        with pytest.raises(PlacementError) as caught, place(mine, "run-mine", "PACK", 1):
            pass
        message = str(caught.value)
        assert "after 1 s" in message and "gold 1 CPU and 3 GPUs" in message
        assert "Free: 7 CPUs and 1 GPU of 8 CPUs and 4 GPUs" in message
    # What was taken is given back: the same request is served now.
    with place(mine, "run-mine", "PACK", 30) as slots:
        assert [slot.name for slot in slots["gold"]] == ["gold"]


def test_bundles_are_given_back_when_the_run_fails(ray_session):
    with pytest.raises(KeyError), place(bundles(load_spec("four_gpu")), "run-fails", "PACK", 30):
        raise KeyError("in the run")
    with place(bundles(load_spec("four_gpu")), "run-next", "PACK", 30):
        pass


def test_connect_uses_the_session_of_this_process_and_leaves_it_open(ray_session):
    with connect("local", load_spec("laptop"), "run-reuse"):
        assert [(node.cpus, node.gpus) for node in live_nodes()] == [(8, 4)]
    assert ray_session.is_initialized() and live_nodes()


def test_a_session_of_its_own_finds_the_packages_from_any_folder(tmp_path):
    """A fresh process, in another folder, with nothing installed: workers still import what they need."""
    script = tmp_path / "drive.py"
    script.write_text(
        textwrap.dedent("""
        import os, sys
        sys.path.insert(0, sys.argv[1])
        from cluster.session import connect, live_nodes
        from cluster.spec import ClusterSpec
        from framework.errors import UserError
        assert "ray" not in sys.modules
        spec = ClusterSpec(name="x", local={"num_cpus": 2, "num_gpus": 1})
        with connect("local", spec, "fresh"):
            import ray
            assert [(node.cpus, node.gpus) for node in live_nodes()] == [(2, 1)]

            @ray.remote
            def look():
                import actors, cluster.plan, framework.errors, jobs
                return os.environ["OMP_NUM_THREADS"], framework.errors.__file__

            threads, found = ray.get(look.remote())
            assert threads == "1" and found.startswith(sys.argv[1]), (threads, found)
        assert not ray.is_initialized()
        for address, said in (("127.0.0.1:9", "no Ray head listens"), ("ray://here:1", "give local, auto")):
            try:
                with connect(address, spec, "nowhere"):
                    raise AssertionError(address)
            except UserError as error:
                assert said in str(error), error
        print("fine")
        """)
    )
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "OMP_NUM_THREADS")}
    ended = subprocess.run(
        [sys.executable, str(script), str(ROOT)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ended.stdout.strip() == "fine", ended.stderr[-2000:]


def test_check_asks_the_cluster_at_an_address(ray_session, capsys, tmp_path):
    from jobs import __main__ as cli

    (tmp_path / "large.yaml").write_text("roles: {policy: {cpus: 5000}}")
    assert cli.main(["check", "--address", "auto"]) == 0
    assert live_nodes()[0].name in capsys.readouterr().out
    assert cli.main(["check", "--address", "auto", f"cluster={tmp_path / 'large.yaml'}"]) == 2
    assert "policy asks for 5000 CPUs" in capsys.readouterr().out
