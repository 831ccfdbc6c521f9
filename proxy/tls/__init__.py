"""Who we are and whom we trust: keys, contexts that rotate live, peer identity. Refusals are raised, never returned."""
