"""Plan, run and resume all trainings and measures of a comparison, each stage in its own process."""
