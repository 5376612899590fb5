"""The bert recipe."""
