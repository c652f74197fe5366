"""The study behind experiments/diversity.py: what is asked and what computes a cell."""
