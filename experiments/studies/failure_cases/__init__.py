"""The study behind experiments/failure_cases.py: what is asked and what computes a cell."""
