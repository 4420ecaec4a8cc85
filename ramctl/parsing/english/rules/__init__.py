"""From a caption's part-of-speech tags to its image tags, a file for each kind of rule."""
