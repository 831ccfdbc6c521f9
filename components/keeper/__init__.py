"""The keeper of trust, in the cluster: makes anchor, issuer and bundle where there are none, and renews the issuer.

Belongs here: when something is due (pure), the process that does it, and its resources with the rights they need. Does
not belong here: how certificates are made and checked (`components.trust`), leaves (`components.identity`).
"""
