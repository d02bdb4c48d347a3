"""The sections of a report: each function makes one of an experiment, or None where it has nothing to say."""
