"""Penn Treebank tags by what the rules ask for."""

NOUNS = frozenset({"NN", "NNS", "NNP", "NNPS"})
ADJECTIVES = frozenset({"JJ", "JJR", "JJS"})
VERBS = frozenset({"VB", "VBD", "VBG", "VBN", "VBP", "VBZ"})
DETERMINERS = frozenset({"DT", "PRP$", "PDT", "WP$", "CD", "POS"})
BOUNDARIES = frozenset({".", ":", "``", "''", "-LRB-", "-RRB-"})

MAKES_NOUN = DETERMINERS | ADJECTIVES
