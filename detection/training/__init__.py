"""The fine-tuning run of every engine: folders, resuming, frozen stages, batch norm statistics."""
