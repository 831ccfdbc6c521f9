"""A release as users get it: every artefact is installed from its file, outside of the clone, and used."""
