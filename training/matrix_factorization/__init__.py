"""The mf recipe."""
