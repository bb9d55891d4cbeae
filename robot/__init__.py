"""Robots: demonstrations, policies that act, and their scores."""
