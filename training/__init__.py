"""Training: torch, transformers, scikit-learn; ends in a bundle that the runtime loads."""
