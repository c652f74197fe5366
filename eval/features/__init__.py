"""Feature networks, a file each, and their registry."""
