"""The Pulumi program: settings -> Mesh -> exports. `pulumi up` and `tulle up` run this same file."""

import pulumi

from components.mesh import Mesh, read_stack

settings = read_stack()
mesh = Mesh("tulle", settings)

pulumi.export("meshNamespace", settings["names"]["mesh_namespace"])
pulumi.export("trustDomain", settings["names"]["trust_domain"])
pulumi.export("trustBundle", mesh.trust_bundle)
pulumi.export("prometheusUrl", mesh.prometheus_url)
pulumi.export("images", dict(settings["images"]))
