"""A label system from the tags of a caption corpus."""
