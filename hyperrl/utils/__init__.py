"""Helpers that know nothing of learning: errors in words, seeds, files, devices, definition files."""
