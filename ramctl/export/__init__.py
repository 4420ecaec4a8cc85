"""Tags to where other programs read them: sidecars, files of other programs, pages."""

from ramctl.tagging import output_formats as formats

# Here, as a help needs them and no more.
FORMATS = (*formats.FORMATS, "exiftool-csv", "coco")
