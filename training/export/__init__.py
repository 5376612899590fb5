"""From a network to a bundle, behind a gate."""
