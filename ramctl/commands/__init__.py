"""The commands of `ramctl`, and their options."""
