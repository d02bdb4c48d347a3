"""Runs composed of roles: the command line, the drivers, studies and reports."""
