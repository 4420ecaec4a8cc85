"""Captions: the formats of other projects, and those of a vision-language model."""
