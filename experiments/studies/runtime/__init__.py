"""The study behind experiments/runtime.py: what is asked and what computes a cell."""
