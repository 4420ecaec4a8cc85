"""What the phrases of a caption give: the tags of nouns, attributes and verbs."""
