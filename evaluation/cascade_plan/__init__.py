"""Find out whether a cascade is worth it: costs, conditions, latency and a recommendation."""
