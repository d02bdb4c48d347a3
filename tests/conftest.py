"""One environment for every test: one thread, no network, shapes checked."""

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ.pop("RAY_ADDRESS", None)

# The settings above must stand before torch starts its threads, and the hook before framework is imported.
import pytest
import torch
from jaxtyping import install_import_hook

from tests.shape_check import check

install_import_hook("framework", f"{check.__module__}.{check.__name__}")
torch.set_num_threads(1)


@pytest.hookimpl(optionalhook=True)  # there with pytest-xdist
def pytest_xdist_make_scheduler(config, log):
    """Tests of a file go to one process, for they share what they fit; those on Ray too, for they share a session."""
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid):
            return "ray" if "local_cluster/" in nodeid else super()._split_scope(nodeid)

    return ByFile(config, log)


def pytest_collection_modifyitems(items):
    """Tests on Ray come first: they take longest, wait most, and would else be what the others have to be waited for."""
    items.sort(key=lambda item: item.path.parent.name != "local_cluster")


@pytest.fixture
def make_rollout():
    """A builder of rollouts from a mask; everything not given is neutral."""
    from framework.types import Rollout

    def build(mask, logprobs=None, values=None, group=None):
        mask = torch.as_tensor(mask).bool()
        rows = mask.shape[0]
        return Rollout(
            prompt_ids=torch.ones(rows, 2, dtype=torch.long),
            prompt_mask=torch.ones(rows, 2, dtype=torch.bool),
            response_ids=torch.zeros(mask.shape, dtype=torch.long),
            mask=mask,
            logprobs=torch.zeros(mask.shape, dtype=torch.float64) if logprobs is None else logprobs,
            values=values,
            ended=torch.ones(rows, dtype=torch.bool),
            group=torch.zeros(rows, dtype=torch.long) if group is None else torch.as_tensor(group),
            prompts=("p",) * rows,
            responses=("r",) * rows,
            step=0,
            policy_version=0,
        )

    return build


@pytest.fixture
def make_shaped(make_rollout):
    """A builder of shaped rollouts from rewards per token."""
    from framework.types import Shaped

    def build(mask, token_rewards, values=None, group=None):
        rollout = make_rollout(mask, values=values, group=group)
        zeros = torch.zeros(rollout.mask.shape, dtype=token_rewards.dtype)
        return Shaped(
            rollout=rollout,
            reference=zeros,
            reward=token_rewards.sum(dim=1),
            token_rewards=token_rewards,
            kl_nats=zeros.sum(dim=1),
            kl_coef=0.0,
        )

    return build
