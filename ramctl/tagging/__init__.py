"""Photos to tags: `Tagger`, and what it is made of."""

from ramctl.tagging.tagger import Tagger, TaggerOptions

__all__ = ["Tagger", "TaggerOptions"]
