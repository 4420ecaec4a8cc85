"""File names that are photos'."""

from pathlib import Path

RAW_SUFFIXES = frozenset({
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".iiq", ".mrw", ".nef", ".nrw", ".orf",
    ".pef", ".raf", ".raw", ".rw2", ".srw", ".x3f",
})  # fmt: skip
SUFFIXES = RAW_SUFFIXES | {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".tif", ".tiff",
    ".bmp", ".ppm", ".pgm", ".ico", ".heic", ".heif", ".hif", ".avif", ".jxl",
}  # fmt: skip


def is_photo_name(name: str) -> bool:
    """Whether a file name has a photo's extension, in either case."""
    return Path(name).suffix.lower() in SUFFIXES


def is_raw_name(name: str) -> bool:
    """Whether a file name has the extension of a camera's raw files."""
    return Path(name).suffix.lower() in RAW_SUFFIXES
