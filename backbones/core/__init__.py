"""Code that every package of the project shares; it imports no other package of the project."""
