"""The detectron2 engine: the protocols of the papers at full scale."""
