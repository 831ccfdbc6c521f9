"""What the playbook `verify` found of a cluster's nodes, and what it means to a stack."""
