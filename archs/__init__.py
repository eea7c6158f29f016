"""Backbones with key layouts of their own."""
