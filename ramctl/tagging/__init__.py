"""Photos to tags: `Tagger`, and what it is made of."""

from ramctl.tagging.scorers import TaggerOptions
from ramctl.tagging.tagger import Tagger

__all__ = ["Tagger", "TaggerOptions"]
