"""The published tables beside our configs and commands: docs/papers.md from docs/papers.yaml."""
