"""One Ray session for every test that needs one; its CPUs and GPUs are logical, so none is needed."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Ray and its workers read these when they start; without the first, a test session would leave a token behind
# that every later cluster of this user would then demand.
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ.update(
    OMP_NUM_THREADS="1",
    RAY_USAGE_STATS_ENABLED="0",
    RAY_TRAIN_HEALTH_CHECK_INTERVAL_S="0.2",
    RAY_max_direct_call_object_size=str(2**20),
    RAY_worker_niceness="0",  # at 15, its default, tests in other processes take all of two processors
    HF_HUB_OFFLINE="1",
    TOKENIZERS_PARALLELISM="false",
)
os.environ.pop("RAY_ADDRESS", None)


@pytest.fixture(scope="session")
def ray_session():
    """A local session with 8 logical CPUs and 4 logical GPUs."""
    # Not pytest's own folder: socket paths in it would exceed 107 bytes.
    folder = tempfile.mkdtemp(prefix="gl-")
    # Tests run from the checkout with nothing installed; workers must find the same packages.
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *([before] if before else [])])
    import ray

    ray.init(
        address="local",
        num_cpus=8,
        num_gpus=4,
        include_dashboard=False,
        object_store_memory=100 * 2**20,
        log_to_driver=False,
        namespace="tests",
        _temp_dir=folder,
    )
    yield ray
    ray.shutdown()
    os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)
    shutil.rmtree(folder, ignore_errors=True)
