"""How English captions are read: a part-of-speech tagger, WordNet, word lists and rules."""
