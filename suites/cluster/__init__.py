"""Stages as jobs of a cluster: submitted once, found again by any later call, without a process that stays."""
