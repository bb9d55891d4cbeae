"""What a bundle needs on a device: standard library, numpy, Pillow, tokenizers. No torch."""

__version__ = "0.2.0"  # the only place; every command prints it with --version
