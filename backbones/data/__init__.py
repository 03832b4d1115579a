"""Classification data for pretraining: readers, exact geometry of crops, loading."""

from backbones.data import fine_grained, imagenet_v2, imagenet_xml, in_memory, open_images, tiny_imagenet

# Imported so that they are registered.
__all__ = ["fine_grained", "imagenet_v2", "imagenet_xml", "in_memory", "open_images", "tiny_imagenet"]
