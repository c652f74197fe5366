"""What computes a cell that samples: networks, sampling, decoding, measuring."""
