"""The similarity recipe."""
