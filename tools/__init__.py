"""Commands for the people who build the project: python -m tools.NAME."""
