"""The verifier recipe."""
