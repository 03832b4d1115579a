"""What enters the hash of a stage besides its settings: the content of data folders, the source of a method."""
