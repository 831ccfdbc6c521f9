"""`python -m tests.bench`: Tulle beside Envoy, same topology and run, alternating. No test stands here."""
