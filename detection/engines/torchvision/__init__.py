"""The torchvision engine: a Faster R-CNN that needs nothing outside the package index."""
