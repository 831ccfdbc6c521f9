"""The page that lies beside a release: pure, facts in, Markdown out."""

from collections.abc import Mapping
from typing import Final

from release.versions import CHANGELOG, sections

ROWS: Final = (
    ("install.sh", "the command `tulle` for one user, without root: `sh install.sh FOLDER-OR-URL`"),
    ("tulle-{v}-py3-none-any.whl", "the command and the components, for any Python from 3.11 on"),
    ("tulle-{v}-{tag}.whl", "the same with the compiled data plane, see below"),
    ("tulle-{v}.tar.gz", "the sources, from which any Python from 3.11 on builds the compiled wheel"),
    ("requirements.txt", "what the command needs, pinned by hash: `pip install --require-hashes -r requirements.txt`"),
    ("images.oci.tar", "the images proxy, control and prometheus ({arch}), as an OCI layout"),
    ("images.json", "their names by digest: `tulle up --stack prod --context NAME -c images.refs=@images.json`"),
    ("Containerfile", "how they are made; it builds from the sources"),
    ("install-STACK.yaml", "the stack's objects for `kubectl apply -f`, each image by its digest"),
    ("pulumi-resource-tulle-v{v}.tar.gz", "the components for Pulumi's languages"),
    ("tulle-mesh-{v}.tar.gz", "the Ansible collection `tulle.mesh`: `ansible-galaxy collection install FILE`"),
    ("sbom-*.cdx.json", "what is in each of them (CycloneDX 1.6)"),
    ("SHA256SUMS", "`sha256sum --check SHA256SUMS`"),
)


def page(
    version: str, commit: str, registry: str, wheel_tag: str, needed: Mapping[str, list[str]],
    digests: Mapping[str, str], arch: str, changelog: str,
) -> str:  # fmt: skip
    """README.md of a release."""
    rows = [f"| `{name.format(v=version, tag=wheel_tag)}` | {text.format(arch=arch)} |" for name, text in ROWS]
    libraries = ", ".join(f"`{name}`{_asked(asked)}" for name, asked in needed.items())
    images = [f"| `{registry}/{name}:{version}` | `{digest}` |" for name, digest in digests.items()]
    return f"""# Tulle {version}

Built from commit {commit}. {CHANGELOG} of this version:

{sections(changelog)[version].strip()}

## Files

| file | what it is |
|---|---|
{chr(10).join(rows)}

## Where the compiled wheel runs

`{wheel_tag}`: it bundles no library, so that OpenSSL and nghttp2 are the ones that the distribution keeps
patched; that is why its tag is not manylinux. The machine must have {libraries}.
Debian from 12 and Ubuntu from 24.04 on have them (packages `libssl3` or `libssl3t64`, and `libnghttp2-14`). The
command `tulle` needs none of it, and pip takes the other wheel where this one does not fit.

## Images

| image | digest |
|---|---|
{chr(10).join(images)}

```sh
image={registry}/proxy:{version}                        # each of them, into the registry
skopeo copy --preserve-digests oci-archive:images.oci.tar:$image docker://$image
ctr --namespace k8s.io images import images.oci.tar     # or into a node, by name; a manifest names digests
```

## What is the same in every build

The same tag gives the same bytes of the sources, the wheel without compiled modules, the collection, the Pulumi
package and `requirements.txt`, wherever zlib is the same. The compiled wheel depends on compiler and Python headers,
the images on the day: they hold Debian's newest packages, and so their digests, in manifests and bills, are others
too. The checksums tell of a broken or exchanged file, not of who made it: nothing here is signed.
"""


def _asked(versions: list[str]) -> str:
    return f" ({', '.join(versions)})" if versions else ""
