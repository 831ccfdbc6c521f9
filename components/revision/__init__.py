"""Control planes beside the mesh's own.

`names` says how their parts are called and whom they serve (pure); `resource` keeps one from being removed while pods
need it.
"""
