"""How often tags occur in captions, with which kinds, and beside which other tags."""

from array import array
from collections import Counter
from collections.abc import Iterable

import numpy as np
from scipy import sparse

from ramctl.parsing.parsed_caption import ParsedCaption

# The number of tags that make up the contexts by which two words are compared.
N_CONTEXTS = 2000


class TagCounts:
    """Counts over a corpus of parsed captions; holds four bytes per mention.

    A free compound counts as a mention besides the mention of its head.
    """

    def __init__(self, captions: Iterable[ParsedCaption] = ()) -> None:
        self.captions: Counter[str] = Counter()
        self.kinds: dict[str, Counter[str]] = {}
        self.phrases: Counter[str] = Counter()
        # The -ing forms of actions, which also name the activity: {"surf": {"surfing": 12}}.
        self.gerunds: dict[str, Counter[str]] = {}
        self._ids: dict[str, int] = {}
        self._mentions = array("i")
        self._starts = array("q", [0])
        for parsed in captions:
            self.add(parsed)

    def add(self, parsed: ParsedCaption) -> None:
        """Count one caption."""
        for mention in parsed.mentions:
            tag = mention.tag
            self.captions[tag] += 1
            self.kinds.setdefault(tag, Counter())[mention.kind] += 1
            self._mentions.append(self._ids.setdefault(tag, len(self._ids)))
            if mention.kind == "action" and mention.words[-3:] == "ing":
                self.gerunds.setdefault(tag, Counter())[mention.words.lower()] += 1
        for phrase in dict.fromkeys(parsed.phrases):
            self.phrases[phrase] += 1
            self._mentions.append(self._ids.setdefault(phrase, len(self._ids)))
        self._starts.append(len(self._mentions))

    def kind(self, tag: str) -> str:
        """The kind that most mentions of a tag have."""
        kinds = self.kinds.get(tag, Counter())
        return min(kinds, key=lambda kind: (-kinds[kind], kind), default="object")

    def contexts(self, tags: list[str]) -> sparse.csr_matrix:
        """Unit vectors of the positive mutual information of tags with the commonest tags.

        One row per tag, one column per context; unknown tags have empty rows.
        """
        n_captions, n_ids = len(self._starts) - 1, len(self._ids)
        ones = np.ones(len(self._mentions), np.float32)
        ids = np.frombuffer(self._mentions, np.int32)
        starts = np.frombuffer(self._starts, np.int64)
        mentions = sparse.csr_matrix((ones, ids, starts), shape=(n_captions, n_ids))
        common = sorted(self.captions, key=lambda tag: (-self.captions[tag], tag))[:N_CONTEXTS]
        columns = mentions[:, [self._ids[tag] for tag in common]]
        known = sparse.diags([float(tag in self._ids) for tag in tags])
        rows = mentions[:, [self._ids.get(tag, 0) for tag in tags]] @ known
        together = (rows.T @ columns).tocoo()
        totals_row = np.asarray(rows.sum(axis=0)).ravel()
        totals_column = np.asarray(columns.sum(axis=0)).ravel()
        expected = totals_row[together.row] * totals_column[together.col] / max(n_captions, 1)
        information = np.log(together.data / expected)
        # The co-occurrence of a tag with itself carries no meaning.
        pairs = zip(together.row, together.col, strict=True)
        same = np.array([tags[r] == common[c] for r, c in pairs])
        information[same.astype(bool) | (information < 0)] = 0
        vectors = sparse.csr_matrix((information, (together.row, together.col)), together.shape)
        lengths = np.sqrt(np.asarray(vectors.multiply(vectors).sum(axis=1)).ravel())
        return sparse.diags(1 / np.maximum(lengths, 1e-9)) @ vectors
