"""Is a cascade worth it."""
