"""The study behind experiments/rejection_sampling.py: what is asked and what computes a cell."""
