"""Train a classifier: one run from its config, its teacher, its checkpoints and the choice of the best epoch."""
