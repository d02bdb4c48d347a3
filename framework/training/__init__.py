"""Engines that take steps, and the three fits: policy (SFT), reward heads, policy update."""
