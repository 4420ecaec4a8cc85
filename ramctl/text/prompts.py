"""The authors' prompts for labels: 63 sentences about photos into which a label's name is put."""

from collections.abc import Sequence

# Source: the templates of the authors' openset_utils.py, in their order; `{a}` is the article.
TEMPLATES = (
    "There is {a} {name} in the scene.",
    "There is the {name} in the scene.",
    "a photo of {a} {name} in the scene.",
    "a photo of the {name} in the scene.",
    "a photo of one {name} in the scene.",
    "itap of {a} {name}.",
    "itap of my {name}.",
    "itap of the {name}.",
    "a photo of {a} {name}.",
    "a photo of my {name}.",
    "a photo of the {name}.",
    "a photo of one {name}.",
    "a photo of many {name}.",
    "a good photo of {a} {name}.",
    "a good photo of the {name}.",
    "a bad photo of {a} {name}.",
    "a bad photo of the {name}.",
    "a photo of a nice {name}.",
    "a photo of the nice {name}.",
    "a photo of a cool {name}.",
    "a photo of the cool {name}.",
    "a photo of a weird {name}.",
    "a photo of the weird {name}.",
    "a photo of a small {name}.",
    "a photo of the small {name}.",
    "a photo of a large {name}.",
    "a photo of the large {name}.",
    "a photo of a clean {name}.",
    "a photo of the clean {name}.",
    "a photo of a dirty {name}.",
    "a photo of the dirty {name}.",
    "a bright photo of {a} {name}.",
    "a bright photo of the {name}.",
    "a dark photo of {a} {name}.",
    "a dark photo of the {name}.",
    "a photo of a hard to see {name}.",
    "a photo of the hard to see {name}.",
    "a low resolution photo of {a} {name}.",
    "a low resolution photo of the {name}.",
    "a cropped photo of {a} {name}.",
    "a cropped photo of the {name}.",
    "a close-up photo of {a} {name}.",
    "a close-up photo of the {name}.",
    "a jpeg corrupted photo of {a} {name}.",
    "a jpeg corrupted photo of the {name}.",
    "a blurry photo of {a} {name}.",
    "a blurry photo of the {name}.",
    "a pixelated photo of {a} {name}.",
    "a pixelated photo of the {name}.",
    "a black and white photo of the {name}.",
    "a black and white photo of {a} {name}.",
    "a plastic {name}.",
    "the plastic {name}.",
    "a toy {name}.",
    "the toy {name}.",
    "a plushie {name}.",
    "the plushie {name}.",
    "a cartoon {name}.",
    "the cartoon {name}.",
    "an embroidered {name}.",
    "the embroidered {name}.",
    "a painting of the {name}.",
    "a painting of a {name}.",
)


def label_prompts(label: str, templates: Sequence[str] = TEMPLATES) -> list[str]:
    """The texts whose mean embedding stands for a label.

    Source: the authors' build_openset_label_embedding, quirks included: the article depends on the
    first letter of the unprocessed name, where only lower-case vowels count, and "This is" precedes
    every text that begins with "a" or "the" (so also "an embroidered ...").
    """
    name = label.replace("_", " ").replace("/", " or ").lower().rstrip(".")
    article = "an" if label[:1] in tuple("aeiou") else "a"
    texts = [template.format(a=article, name=name) for template in templates]
    return [f"This is {text}" if text.startswith(("a", "the")) else text for text in texts]
