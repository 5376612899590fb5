"""Running routers for others: the HTTP service and the gateway plug-ins."""
