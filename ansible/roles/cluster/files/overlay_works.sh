#!/bin/sh
# Succeeds if an overlay can be mounted with its layers in this folder: on some file systems (an overlay itself) it cannot.
set -eu
folder=$(mktemp -d "$1/overlay.XXXXXX")
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/lower" "$folder/upper" "$folder/work" "$folder/merged"
# In a mount namespace of its own: whatever happens, nothing stays mounted.
unshare --mount mount -t overlay overlay \
    -o "lowerdir=$folder/lower,upperdir=$folder/upper,workdir=$folder/work" "$folder/merged"
