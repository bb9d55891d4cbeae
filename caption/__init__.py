"""Captions of images: data, writer, scores."""
