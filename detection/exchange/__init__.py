"""Exchange of backbone files: verified loading into a detector, export, and import of foreign checkpoints."""
