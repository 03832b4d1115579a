"""Classification pretraining with soft labels, and what can be measured on a classifier."""

__version__ = "0.4.0"
