"""Watches what routers and cascades decide, and whether traffic and outcomes still fit the router."""
