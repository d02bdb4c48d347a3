"""Experiments: every variant, under every condition, at every point of a grid, with every seed, as runs on Ray Tune."""
