"""The machines as data: what a role may ask for, and where it can go."""
