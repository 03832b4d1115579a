"""Rank methods over many data sets: average ranks, Friedman and Nemenyi tests."""
