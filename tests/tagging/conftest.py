"""The bundle of colours, for the tests of this folder and of `serve`."""

from tests.inference.conftest import LABELS, colours, names, photos, save_photo, tag, tags

__all__ = ["LABELS", "colours", "names", "photos", "save_photo", "tag", "tags"]
