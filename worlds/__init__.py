"""Worlds that are true by construction: scenes, images, captions, truth. No torch."""
