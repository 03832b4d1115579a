"""What every package of the project shares; it imports nothing of ours."""
