"""Worlds that are true by construction: scenes, and the language that describes them. No torch."""
