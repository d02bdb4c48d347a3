"""Policies and reward models, and how pretrained ones are read."""
