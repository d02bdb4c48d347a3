"""Random numbers that depend on what is drawn (run seed, role, step, prompt, ...), not on who draws it, or when."""

import hashlib

import numpy as np


def derive(*parts: int | str) -> int:
    """A 63-bit seed from a path of names and numbers; stable across processes and versions."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def numpy_generator(*parts: int | str) -> np.random.Generator:
    """A NumPy generator of its own for this purpose."""
    return np.random.Generator(np.random.Philox(derive(*parts)))
