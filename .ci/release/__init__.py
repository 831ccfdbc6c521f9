"""What `make release` builds, from a tag. It belongs to the repository, not to what users install."""
