"""The model card that a bundle carries."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ramctl.labels import LabelSystem
from ramctl.model.config import Preset

LIMITS = """\
- It names what its captions named: no counting, no fine-grained classes (breeds, makes, species),
  no text in the photo.
- It inherits the bias of its photos and captions: whom and what they show, and how people are
  described.
- A tag that is missing from the captions of photos that show it was learnt as absent.
- Scores of words outside the label system rest on the text embedding alone and are less sure.
"""


def model_card(name: str, preset: Preset, labels: LabelSystem, meta: Mapping[str, Any]) -> str:
    """The card as Markdown: how it was made, from what, what was measured, what it cannot do."""
    provenance = meta["provenance"]
    data, measured = provenance["data"], provenance["measured"]
    kinds = Counter(label.kind for label in labels)
    lines = [
        f"# {name}",
        "",
        f"An image tagger in the manner of RAM (Recognize Anything): {preset.description}.",
        "",
        "## Labels",
        "",
        f"{len(labels)} labels ("
        + ", ".join(f"{number} {kind}" for kind, number in kinds.most_common())
        + "), stored in `labels.jsonl` with their thresholds.",
        "",
        "## Data",
        "",
        *(f"- {key.replace('_', ' ')}: {value}" for key, value in data.items()),
        "",
        "The photos and captions keep the licences of their origin; see where the data came from.",
        "",
        "## Made by",
        "",
        "```console",
        *(f"$ {command}" for command in provenance["commands"]),
        "```",
        "",
        f"Seed {provenance['seed']}; "
        + ", ".join(f"{part} {number}" for part, number in provenance["versions"].items())
        + ".",
        "",
        "## Measured",
        "",
        *(f"- {key.replace('_', ' ')}: {value}" for key, value in measured.items()),
        "",
        "## Limits",
        "",
        LIMITS,
    ]
    return "\n".join(lines)
