"""What tests are built from: the cluster, objects to put on it, waits, captures, peers. No test stands here."""
