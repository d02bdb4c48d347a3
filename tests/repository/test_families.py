"""Every family that transformers lists: right, or refused in a line; and the table that says so."""

import pytest

from tests.repository.generate_families import CAUSAL, CLASSIFIERS, FAMILIES, HEAD, MASKED, PAGE, row

TABLE = {line.split("|")[1].strip(): line for line in PAGE.read_text(encoding="utf-8").splitlines() if "|" in line}
FEW = [
    "llama", "gpt2", "cohere", "granite", "gemma2", "phi", "modernbert-decoder", "opt", "bloom", "mpt", "lfm2", "mamba",
    "jamba", "qwen3_next", "gpt_oss", "rwkv", "xlnet", "bart", "roberta", "fnet", "t5",
]  # fmt: skip
"""Of every kind one: heads, caches, positions, refusals."""


def test_every_type_of_both_lists_has_a_row():
    assert set(TABLE) - {"type", "---"} == set(FAMILIES) == {*CAUSAL, *CLASSIFIERS}
    assert PAGE.read_text(encoding="utf-8").startswith(HEAD)
    for kind, line in TABLE.items():
        policy, encoder, classifier = (cell.strip() for cell in line.split("|")[2:5])
        assert kind in ("type", "---") or (policy != "–") == (kind in CAUSAL)
        assert kind in ("type", "---") or (classifier != "–") == (kind in CLASSIFIERS)
        assert kind in ("type", "---") or (encoder != "–") == (kind in CAUSAL or kind in MASKED)


@pytest.mark.parametrize("kind", FEW)
def test_a_family_does_as_the_table_says(kind):
    assert row(kind) == TABLE[kind]


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted({*FAMILIES} - {*FEW}))
def test_every_other_family_does_as_the_table_says(kind):
    assert row(kind) == TABLE[kind]


def test_no_family_is_lost():
    """Of 154 types for causal models; fewer would mean that something was broken and refused since."""
    assert sum("| yes, KL ≤ " in line for line in TABLE.values()) >= 120
