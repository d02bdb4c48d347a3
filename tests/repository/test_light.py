"""A configuration is read without the libraries that take long to import: `goldilocks check` answers in a moment."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "scipy", "sklearn", "pandas", "pyarrow", "transformers", "datasets", "statsmodels", "ray")


@pytest.mark.parametrize("work", ["import framework.config", "from jobs.__main__ import main; main(['check'])"])
def test_a_configuration_is_read_without_heavy_libraries(work):
    code = f"import sys; {work}; print('\\n', *(name for name in {HEAVY} if name in sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1].split() == [], "import these in the functions that need them"
