"""A training photo: decoded, randomly changed, resized and normalised.

Every random choice comes from the sample's own generator, so that neither the number of workers
nor the order of reading changes a pixel. S pixels a side.
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ramctl.model.preprocess import Preprocess, PreprocessConfig
from ramctl.model.preset import AugmentConfig
from ramctl.photos.decoding import load_photo

GREY = (128, 128, 128)  # pixels from outside the photo, as the authors fill them
OPERATION_PROBABILITY = 0.5  # of each chosen operation; authors' RandomAugment
UNCHANGED = AugmentConfig((1.0, 1.0), 0.0, 0, 0)
LOG_ASPECTS = (math.log(3 / 4), math.log(4 / 3))  # of random crops, torchvision's RandomResizedCrop


class TrainingPhoto:
    """Reads a photo for training; a large JPEG is decoded at about `decode_px` pixels a side."""

    def __init__(self, preprocess: PreprocessConfig, augment: AugmentConfig) -> None:
        self.preprocess = Preprocess(preprocess)
        self.augment = augment
        self.decode_px = math.ceil(preprocess.size / math.sqrt(augment.crop_scale[0]))

    def __call__(self, name: str, base: Path, random: np.random.Generator) -> NDArray[np.float32]:
        """(3, S, S); RecordProblem when the photo is missing or broken."""
        return self.preprocess.normalise(self.pixels(name, base, random))

    def pixels(self, name: str, base: Path, random: np.random.Generator) -> NDArray[np.uint8]:
        """The pixels before normalisation (S, S, 3), in a quarter of the memory."""
        official = self.preprocess.config.loader == "official"
        photo = load_photo(name, base, target=self.decode_px, official=official)
        if self.augment.crop_scale != (1.0, 1.0):
            photo = random_crop(photo, self.augment.crop_scale, self.preprocess.config.size, random)
        if random.random() < self.augment.flip:
            photo = ImageOps.mirror(photo)
        if self.augment.operations:
            photo = random_operations(photo, self.augment, random)
        return self.preprocess.resize(photo)


def random_crop(
    photo: Image.Image, scale: tuple[float, float], size: int, random: np.random.Generator
) -> Image.Image:
    """A random part of the photo, a fraction in `scale` of its area, resized to `size` px.

    Source: torchvision's RandomResizedCrop with its defaults, as the authors use it.
    """
    width, height = photo.size
    box = (0, 0, width, height)
    for _ in range(10):
        area = width * height * random.uniform(*scale)
        aspect = math.exp(random.uniform(*LOG_ASPECTS))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left = int(random.integers(0, width - w + 1))
            top = int(random.integers(0, height - h + 1))
            box = (left, top, left + w, top + h)
            break
    return photo.resize((size, size), Image.Resampling.BICUBIC, box)


def random_operations(
    photo: Image.Image, augment: AugmentConfig, random: np.random.Generator
) -> Image.Image:
    """Some of the operations, one after the other, each with probability one half.

    Source: authors' RandomAugment (ram_official A5). Deviates: AutoContrast is Pillow's, because
    theirs whitens photos; Brightness and Sharpness are left out, because they do nothing at the
    authors' magnitude.
    """
    operations = list(OPERATIONS.values())
    for index in random.choice(len(operations), augment.operations):
        if random.random() < OPERATION_PROBABILITY:
            sign = 1 if random.random() < 0.5 else -1
            photo = operations[index](photo, sign * augment.magnitude / 10)
    return photo


def _affine(photo: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    return photo.transform(
        photo.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=GREY
    )


Operation = Callable[[Image.Image, float], Image.Image]
# Their order and number decide which are drawn.
OPERATIONS: dict[str, Operation] = {
    "Identity": lambda photo, _: photo,
    "AutoContrast": lambda photo, _: ImageOps.autocontrast(photo),
    "Equalize": lambda photo, _: ImageOps.equalize(photo),
    "ShearX": lambda photo, m: _affine(photo, (1, 0.3 * m, 0, 0, 1, 0)),
    "ShearY": lambda photo, m: _affine(photo, (1, 0, 0, 0.3 * m, 1, 0)),
    "TranslateX": lambda photo, m: _affine(photo, (1, 0, 10 * m, 0, 1, 0)),
    "TranslateY": lambda photo, m: _affine(photo, (1, 0, 0, 0, 1, 10 * m)),
    "Rotate": lambda photo, m: photo.rotate(30 * m, Image.Resampling.BILINEAR, fillcolor=GREY),
}
