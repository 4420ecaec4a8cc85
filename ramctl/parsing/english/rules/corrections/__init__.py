"""Corrections of part-of-speech tags: what the tagger gets wrong in captions."""
