"""`python -m tests.bench`: Tulle beside Envoy, in the same topology and run, in alternating rounds. No test stands here."""
