"""Which errors a detector makes, from matches.npz, on the same resamples of images as the verdict."""
