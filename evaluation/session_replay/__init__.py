"""What a policy is worth over whole conversations."""
