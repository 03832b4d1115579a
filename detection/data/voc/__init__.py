"""Pascal VOC folders: split files, annotations, everything that is wrong with them, and the training data in them."""
