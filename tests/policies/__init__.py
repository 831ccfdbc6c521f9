"""The guardrails: each rule by its examples, the pack as Pulumi serves it, and the embedded deployer's use of them."""
