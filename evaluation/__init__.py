"""What a router is worth."""
