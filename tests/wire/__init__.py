"""Codecs against independent implementations of the same formats."""
