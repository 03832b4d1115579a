"""Published tables with our configs and commands: docs/papers.md from docs/papers.yaml."""
