"""The study behind experiments/class_conditional.py: what is asked and what computes a cell."""
