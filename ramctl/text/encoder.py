"""Text encoders: what turns label names, descriptions and captions into vectors.

A bundle's `text` folder holds one of two: `encoder.json`, which names a CLIP, or a static table
(`table.safetensors` and `tokenizer.json`). What is large is loaded for the first text that needs
it.
"""

from pathlib import Path

from ramctl.text.clip import NAMED_ENCODER, ClipTextEncoder
from ramctl.text.static_table import TABLE, StaticTextEncoder

TextEncoder = ClipTextEncoder | StaticTextEncoder


def read_text_encoder(folder: Path) -> TextEncoder | None:
    """The encoder in a `text` folder, None without (Tag2Text); RunProblem if it is unreadable."""
    if (folder / NAMED_ENCODER).is_file():
        return ClipTextEncoder.read(folder)
    if (folder / TABLE).is_file():
        return StaticTextEncoder.read(folder, source=str(folder.parent))
    return None
