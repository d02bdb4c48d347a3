"""Maths, models, data, configuration and analysis. Nothing in here imports ray."""
