"""Fine-tuning of detectors from a backbone, and their evaluation."""
