"""Captions of photos by a vision-language model behind an OpenAI-compatible endpoint."""
