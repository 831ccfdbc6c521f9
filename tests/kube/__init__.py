"""End to end: the mesh on Tulle's own local cluster, seen from outside."""
