"""Photos to tags: the tagger, the selection of tags, formats and sidecars."""
