"""The study behind experiments/editing.py: what is asked and what computes a cell."""
