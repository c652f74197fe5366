"""Statistics of real images that samples are measured against."""
