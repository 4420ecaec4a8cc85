"""Text encoders: CLIP or a static table, which turn labels, words and captions into vectors."""
