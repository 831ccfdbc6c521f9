"""The demo application: small HTTP and TCP programs that know nothing of the mesh. What declares them is `resource.py`.

Standard library only: no mesh code, no retry, no preStop sleep, so that whatever they count is the mesh's doing.
"""
