"""Data of classification pretraining: readers, exact geometry of crops, loading."""

from backbones.data import imagenet_xml, in_memory, open_images, tiny_imagenet

__all__ = ["imagenet_xml", "in_memory", "open_images", "tiny_imagenet"]  # imported so that they are registered
