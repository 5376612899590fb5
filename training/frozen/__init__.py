"""The frozen recipe."""
