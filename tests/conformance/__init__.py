"""Judges that are not ours: conformance suites, oracles, hostile peers and other people's programs."""
