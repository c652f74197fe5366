"""The study behind experiments/decoding_trace.py: what is asked and what computes a cell."""
