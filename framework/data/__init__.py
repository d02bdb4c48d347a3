"""Text and preferences from files, and the stream of prompts a run draws from."""
