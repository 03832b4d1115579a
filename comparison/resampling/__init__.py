"""Metrics of resampled images: AP and AR of weighted images, in compiled code, and the files that keep them."""
