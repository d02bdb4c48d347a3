"""What of a run must not depend on how it was run."""

from pathlib import Path


def contents(run: Path) -> dict[str, bytes]:
    """Metrics, rollouts and the last checkpoint, as bytes by relative path."""
    last = max((run / "checkpoints").glob("step_*"), key=lambda p: int(p.name.removeprefix("step_")))
    files = [run / "metrics.jsonl", *sorted(run.glob("rollouts/*.parquet"))]
    files += sorted(p for p in last.iterdir() if p.is_file())
    return {str(p.relative_to(run)): p.read_bytes() for p in files}
