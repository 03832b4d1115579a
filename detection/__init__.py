"""Detectors fine-tuned from a backbone, and their evaluation."""
