"""Calibration: observers, streaming ranges, the ranges file."""
