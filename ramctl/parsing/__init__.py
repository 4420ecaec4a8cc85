"""Captions to tags, and captions to a label system."""
