"""A run folder on disk: results, stages, leases."""
