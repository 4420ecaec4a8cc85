"""Text vectors of a training run: of label systems, class names and captions.

N texts, M vectors of one label, E text width.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ramctl.checkpoints.bundle import TEXT_FOLDER, Bundle, embedded_bundle
from ramctl.errors import RunProblem, UsageProblem
from ramctl.labels import LabelSystem
from ramctl.model.config import LabelConfig, Preset
from ramctl.text.clip import PREFIX, ClipTextEncoder
from ramctl.text.encoder import TextEncoder, read_text_encoder
from ramctl.text.static_table import StaticTextEncoder, unit

Rows = NDArray[np.float32]


def open_text_encoder(text: str | None, init: Bundle | None, preset: Preset) -> TextEncoder:
    """The encoder of `--text`, else of the bundle that training starts from, else of the teacher.

    `text` is `clip:PLACE` or the folder of a static table. A bundle keeps its CLIP; without any
    the embedded model's table serves. Raises UsageProblem when the width is not the preset's,
    RunProblem when there is no table.
    """
    labels = preset.model.labels
    own: TextEncoder | None = None
    teachers = preset.training.losses.distill if init is None else ()
    place = clip_place(teachers if text is None else [text])
    if place is not None:
        clip = ClipTextEncoder(place, "ram-plus" if labels.kind == "descriptions" else "ram")
        if clip.width != labels.width:
            raise UsageProblem(f"model.labels.width is {labels.width}, {place} has {clip.width}")
        return clip
    if text is not None:
        own = StaticTextEncoder.read(Path(text))
    elif init is not None:
        own = read_text_encoder(init.path / TEXT_FOLDER)
    if own is None:
        embedded = read_text_encoder(embedded_bundle() / TEXT_FOLDER)
        if not isinstance(embedded, StaticTextEncoder):
            raise RunProblem(
                "no text embedding for the labels: name the folder of a static table with --text "
                "(scripts/build_text_table.py makes one)"
            )
        own = replace(embedded, source="the embedded model")
    if not isinstance(own, StaticTextEncoder):
        return own
    from ramctl.pretrained.sentence_encoder import WIDTH, is_installed  # transformers: slow

    use_encoder = len(own.projection) == WIDTH and is_installed()
    return replace(own.cut_to(labels.width), with_sentence_encoder=use_encoder)


def clip_place(teachers: Sequence[str]) -> str | None:
    """The place of the CLIP that is named among teachers, if one is."""
    return next((t.removeprefix(PREFIX) for t in teachers if t.startswith(PREFIX)), None)


def label_vectors(
    labels: LabelSystem,
    config: LabelConfig,
    encoder: TextEncoder,
    init: Bundle | None,
    say: Callable[[str], None],
) -> list[Rows]:
    """The vectors (M, E) of each label: one of its name, or one per description.

    Labels of `init` keep theirs, so that only new ones are embedded, unless its labels are of
    another kind or width.
    """
    stored, rows = [], [-1] * len(labels)
    own = None if init is None else init.preset.model.labels
    if init is not None and own and (own.kind, own.width) == (config.kind, config.width):
        tensors = init.tensors(["labels.text", "labels.counts"])
        text, counts = tensors["labels.text"].astype(np.float32), tensors["labels.counts"].tolist()
        stored, rows = _split(text, counts), rows_in(init.labels, labels)
    new = LabelSystem(label for label, row in zip(labels, rows, strict=True) if row < 0)
    embedded: Iterator[Rows] = iter(())
    if len(new):
        embedded = iter(_embed_labels(new, config, encoder))
        say(f"queries of {len(new)} labels from {encoder.name}")
    return [next(embedded) if row < 0 else stored[row] for row in rows]


def rows_in(known: LabelSystem, labels: LabelSystem) -> list[int]:
    """The row that each label has in the system `known`, -1 where it has none."""
    tags = known.tags
    rows = []
    for index, label in enumerate(labels):
        found = known.ids(label.tag)
        # Names may occur twice (Tag2Text's do), so a label at the same place is the same label.
        same = index < len(tags) and tags[index] == label.tag
        rows.append(index if same else found[0] if found else -1)
    return rows


def _embed_labels(labels: LabelSystem, config: LabelConfig, encoder: TextEncoder) -> list[Rows]:
    if config.kind != "descriptions":
        return _split(encoder.embed_names(labels.tags), [1] * len(labels))
    # "a photo of a TAG." is the first description. Source: the authors' generate_tag_des_llm.py.
    texts = [[f"a photo of a {label.tag}.", *label.descriptions] for label in labels]
    vectors = encoder.embed_sentences([text for group in texts for text in group])
    return _split(vectors, [len(group) for group in texts])


def embed_groups(groups: Sequence[Sequence[str]], encoder: TextEncoder) -> Rows:
    """Mean unit vectors (N, E) of a photo's captions, or of a class's names; zeros for none."""
    flat = [text for texts in groups for text in texts]
    means = np.zeros((len(groups), encoder.width), np.float32)
    vectors = encoder.embed_sentences(flat) if flat else means[:0]
    for row, group in enumerate(_split(vectors, [len(texts) for texts in groups])):
        if len(group):
            means[row] = group.mean(0)
    return unit(means)


def _split(vectors: Rows, counts: Sequence[int]) -> list[Rows]:
    return np.split(vectors, np.cumsum(counts)[:-1])
