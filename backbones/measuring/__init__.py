"""Measurements of a classifier: accuracy, calibration, context, robustness, localisation, and their figures."""
