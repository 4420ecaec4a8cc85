"""What the parser knows of words: WordNet, base forms, and word lists of its own."""
