"""Evidence: all that the numbers of a comparison rest on, in one file that others can check."""
