"""Which model can be asked now."""
