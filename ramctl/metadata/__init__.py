"""Metadata of photos: XMP, IPTC and the texts of trainers, read, merged and written."""
