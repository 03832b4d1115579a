"""Detection data: readers of COCO and VOC files, the catalog of names, the loader."""
