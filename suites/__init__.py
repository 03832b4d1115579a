"""Suites: plan, run and resume all trainings and measures of a comparison, each stage in a process of its own."""
