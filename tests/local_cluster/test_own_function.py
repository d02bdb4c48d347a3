"""A function of the user's own is found by workers of Ray, whose folder and path are others."""

import uuid

import pytest
import torch

from actors.gold import GoldWorker
from actors.group import RayGroup
from cluster.placement import place
from cluster.plan import Bundle
from framework.errors import UserError
from framework.gold import Python

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]


def test_a_gold_worker_on_ray_calls_a_function_of_the_folder_that_the_command_is_given_in(
    tmp_path, monkeypatch, make_rollout
):
    (tmp_path / "own_rule_on_ray.py").write_text("def score(p, r):\n    return [len(x) + 0.5 for x in r]\n")
    monkeypatch.chdir(tmp_path)
    name = f"own-{uuid.uuid4().hex[:8]}"
    with place([Bundle(role, role, 0, 0.25, 0) for role in ("gold", "lost")], name, "PACK", 60) as slots:
        groups = {
            role: RayGroup(role, GoldWorker, (Python(function=f"{module}:score"),), slots[role], namespace=name)
            for role, module in (("gold", "own_rule_on_ray"), ("lost", "not_written_yet"))
        }
        assert torch.equal(groups["gold"].call("score", make_rollout([[1], [1]])).get(), torch.tensor([1.5, 1.5]))
        with pytest.raises(UserError, match=r"there is no module not_written_yet in .*write module:name"):
            groups["lost"].ready().get()
        for group in groups.values():
            group.close()
