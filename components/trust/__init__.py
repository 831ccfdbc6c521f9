"""The certificate authority: anchor, issuer and what is published of them.

Belongs here: making and checking the two certificates (`authority`, pure), the Secrets that hold their keys (`vault`,
I/O), and the resources that declare them (`resource`). Does not belong here: leaves, which identity signs. Keys pass
from `authority` to `vault` and nowhere else.
"""
