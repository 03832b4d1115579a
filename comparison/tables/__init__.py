"""The comparison as text: terminal, Markdown and CSV."""
