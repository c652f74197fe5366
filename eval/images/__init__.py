"""Sets of images to measure: folders, archives, arrays."""
