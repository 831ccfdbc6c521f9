"""Tests of the collection in `ansible/`: its plain Python by import, its playbooks by running them in sandboxes."""
