"""Photos' own keywords and descriptions as records, and their vocabulary as a label system."""
