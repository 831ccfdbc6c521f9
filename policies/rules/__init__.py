"""Rules as pure functions: resources in, violations out. They know neither Pulumi nor the mesh's components."""
