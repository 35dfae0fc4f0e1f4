"""Inference: an agent whose context nobody tells it, and that finds it out while it acts."""
