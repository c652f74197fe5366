"""The study behind experiments/reconstruction.py: what is asked and what computes a cell."""
