"""Draw detections and truth on the images of a test set."""
