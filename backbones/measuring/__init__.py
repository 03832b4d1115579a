"""Measure a classifier: accuracy, calibration, context, robustness, localisation, and the figures of these."""
