"""Exclusions: words of a caption that give no tags."""
