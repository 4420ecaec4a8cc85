"""The authors' prompts for labels: 63 sentences about photos into which a label's name is put."""

from functools import cache
from importlib.resources import files


@cache
def templates() -> tuple[str, ...]:
    """The templates of the authors' openset_utils.py, in their order; `{a}` is the article."""
    return tuple((files("ramctl.text") / "templates.txt").read_text("utf-8").splitlines())


def label_prompts(label: str) -> list[str]:
    """The texts whose mean embedding stands for a label.

    Source: the authors' build_openset_label_embedding, quirks included: the article depends on the
    first letter of the unprocessed name, where only lower-case vowels count, and "This is" precedes
    every text that begins with "a" or "the" (so also "an embroidered ...").
    """
    name = label.replace("_", " ").replace("/", " or ").lower().rstrip(".")
    article = "an" if label[:1] in tuple("aeiou") else "a"
    texts = [template.format(a=article, name=name) for template in templates()]
    return [f"This is {text}" if text.startswith(("a", "the")) else text for text in texts]
