"""Evaluate boxes by the definitions of COCO and Pascal VOC."""
