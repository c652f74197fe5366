"""A real SLURM on one machine, from Debian's packages, for tests: see cluster.py."""
