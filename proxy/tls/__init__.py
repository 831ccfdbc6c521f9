"""Mutual TLS: contexts that rotate live, peer identity that raises or is true, keys made in a child process."""
