"""Ways to draw images beside the paper's decoding loop, and the noise that all of them share."""
