"""Inputs of a stage's hash besides its settings: the content of data folders and the source of a method."""
