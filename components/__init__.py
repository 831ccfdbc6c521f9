"""The mesh as vertical slices: what is declared (`resource.py`, Pulumi) beside what runs (the service). Of `proxy`
only `proxy.api` is imported."""
