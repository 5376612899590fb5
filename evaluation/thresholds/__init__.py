"""Choose a threshold, bound its loss with a guarantee, and compare two thresholds in an A/B test."""
