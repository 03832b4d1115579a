"""Statistics of a comparison: differences of methods over seeds and images, tests over several methods, planning."""
