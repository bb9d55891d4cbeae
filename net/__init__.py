"""Networks and their use, next to model.py: samplers, the twin, text and image encoders."""
