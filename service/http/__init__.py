"""The HTTP service: `routelearn serve`."""
