"""Words that options and records take; apart, as every help and completion reads them."""

KINDS = ("object", "scene", "attribute", "action")  # of tags
FORMATS = ("jsonl", "table", "text", "csv", "parquet")  # of `tag`
EXPORT_FORMATS = (*FORMATS, "exiftool-csv", "coco")
CAPTION_FORMATS = (
    "jsonl", "parquet", "coco", "vg", "sbu", "json", "cc", "csv", "lines", "token", "tar", "txt",
    "tags", "ram",
)  # fmt: skip
