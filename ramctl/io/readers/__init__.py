"""What people have captions in: readers that turn each format into records, streaming."""
