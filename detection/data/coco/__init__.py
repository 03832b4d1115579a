"""COCO instances json: its lists and columns, checks that find all its problems, and the reader for training."""
