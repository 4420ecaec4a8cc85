"""Tags to where other programs read them: sidecars, files of other programs, pages."""

from ramctl.tagging import formats

# Here, as a help needs them and no more.
FORMATS = (
    *formats.FORMATS, "tsv", "exiftool-csv", "open-images", "coco", "fiftyone", "label-studio",
    "webdataset",
)  # fmt: skip
PLACED = ("coco", "fiftyone", "label-studio")  # that say where a program finds a photo
