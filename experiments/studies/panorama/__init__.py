"""The study behind experiments/panorama.py: what is asked and what computes a cell."""
