"""Identity: a certificate for every workload, on the strength of its service-account token.

`authority`, `claims` and `limits` are pure; `issuer` reads the issuer's files, `validator` asks the API server,
`server` answers proxies.
"""
