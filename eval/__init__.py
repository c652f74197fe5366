"""Measures of generated images: arrays and folders of images in, numbers out."""
