"""What the proxy counts and how it is read: integer slots for the hot path, text for Prometheus, lines for people."""
