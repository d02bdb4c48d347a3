"""Responses to read, as HTML."""

from framework.report.page import escaped, plural
from framework.report.reading import number
from framework.report.samples import Phase, Sample

LONGEST_TEXT = 3000
"""Characters of a prompt or response that are shown; a report stays a few megabytes."""
TITLES = {"start": "At the start", "peak": "At the gold peak", "end": "At the end"}


def phase_column(phase: Phase) -> str:
    """One moment of a run: its step, its KL and what it wrote."""
    cards = "".join(_card(sample) for sample in phase.samples)
    return (
        f'<section class="phase" data-phase="{phase.name}"><h3>{TITLES[phase.name]}: step {phase.step}, '
        f"{number(phase.kl_nats)} nats</h3>{cards}</section>"
    )


def _card(sample: Sample) -> str:
    gap = "" if sample.gap is None else f"<strong>gap {number(sample.gap, signed=True)}</strong>"
    gold = "not measured" if sample.gold is None else number(sample.gold)
    figures = (
        f"proxy {number(sample.reward)} · gold {gold} · KL {number(sample.kl_nats)} nats · "
        f"{plural(sample.tokens, 'token')}{'' if sample.ended else ', cut off'}"
    )
    return (
        f'<article class="sample{" typical" if sample.is_typical else ""}">'
        f"<header><span>{escaped(sample.label)}</span>{gap}</header>"
        f'<blockquote dir="auto"><span class="prompt">{escaped(_clipped(sample.prompt))}</span>'
        f"{escaped(_clipped(sample.response))}</blockquote><footer>{figures}</footer></article>"
    )


def _clipped(value: str) -> str:
    left_out = len(value) - LONGEST_TEXT
    return (
        value
        if left_out <= 0
        else f"{value[:LONGEST_TEXT]} … ({left_out} more characters in the Parquet file)"
    )
