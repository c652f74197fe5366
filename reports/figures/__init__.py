"""Figures from data frames and images."""
