"""The ways to make a better policy: the values of the section `train`. `jobs/methods` makes their run folders."""

from framework.methods.method import Method
from framework.methods.online import Online

Train = Online
"""A discriminated union over `kind` from the second method on."""

__all__ = ["Method", "Online", "Train"]
