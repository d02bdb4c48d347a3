"""Engines that take steps, the loop that every fit runs in, and the policy's update."""

from collections.abc import Callable

Progress = Callable[[int, int, dict[str, float]], None]
"""Called with (step, steps, figures) as a fit, or another stage, goes on."""
