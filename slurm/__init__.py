"""Sweeps and training on SLURM: shards of work to machines, whatever the work is."""
