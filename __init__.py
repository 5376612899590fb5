"""routelearn: learn, from your own preference data, when the cheap model is enough."""
