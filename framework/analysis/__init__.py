"""What a run folder says: its curves, its summary, and how sure the numbers are."""
