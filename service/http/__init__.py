"""Routers over HTTP."""
