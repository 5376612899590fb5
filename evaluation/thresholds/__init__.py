"""Choose a threshold, guarantee it, compare two in an A/B test."""
