"""Codecs: bytes in, events out. No sockets, no clocks, no knowledge of pods or policy; importable by every layer above."""
