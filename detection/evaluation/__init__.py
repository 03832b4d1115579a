"""Evaluate boxes: COCO's and Pascal VOC's numbers from one reading and one matching."""
