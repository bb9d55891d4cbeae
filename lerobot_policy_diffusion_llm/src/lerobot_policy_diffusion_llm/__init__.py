"""Policies of diffusion-llm for LeRobot, which imports this package by its name's beginning."""

from .configuration_diffusion_llm import DiffusionLlmConfig

__all__ = ["DiffusionLlmConfig"]
