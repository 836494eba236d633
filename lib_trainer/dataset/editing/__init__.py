"""Captions made good: tags and what is done to many captions at once, and files that are changed without loss."""
