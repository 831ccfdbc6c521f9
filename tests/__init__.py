"""Tests of Tulle: `unit` needs nothing, `kube` needs the local cluster; `kit` holds what they are built from."""
