"""What a bundle needs on a device: standard library, numpy, Pillow, tokenizers. No torch."""
