"""Programs on top of the tagger: export, import, search, serve, gallery, convert and doctor."""
