"""Temporal action detection from cheap labels. See docs/architecture.md for how the parts fit."""
