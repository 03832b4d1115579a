"""Pretraining of a classifier: parts built from the config, teachers, the run and the choice of the best epoch."""
