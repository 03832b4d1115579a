"""Pascal VOC folders: split files, annotations, checks that find all their problems, and the reader for training."""
