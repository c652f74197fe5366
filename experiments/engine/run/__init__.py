"""Runs tasks: inline, in worker processes, with leases and signals."""
