"""What was decided, and whether it still fits."""
