"""The measures, a file each, and their registry."""
