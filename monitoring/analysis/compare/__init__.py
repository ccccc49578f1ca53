"""Versions compared so that looking often stays honest; see docs/compare.md."""
