"""What a fine-tuning has in common under every engine: folders, resuming, frozen stages, batch norm statistics."""
