"""One self-contained HTML page about a run or a study, with its plots beside it as PNG files."""
