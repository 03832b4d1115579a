"""COCO instances json: its lists and columns, everything that is wrong with it, and the training data in it."""
