"""Who makes the run folder of each method: `make(inputs, run, context)`, by the kind of `train`."""

from collections.abc import Callable
from pathlib import Path

from jobs.methods import online
from jobs.run_folder import RunContext, RunInputs, RunResult

METHODS: dict[str, Callable[[RunInputs, Path, RunContext], RunResult]] = {"online": online.make}
