"""The matrix-factorization recipe: seconds to train, microseconds to score."""
