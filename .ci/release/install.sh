#!/bin/sh
# Installs the command `tulle` of a release for this user, in an environment of its own. It needs no root, and changes
# nothing outside of two places: $TULLE_HOME (~/.local/share/tulle-cli) and one link in $TULLE_BIN (~/.local/bin).
#
#     sh install.sh [--wheelhouse FOLDER] [--sums SHA256] FOLDER-OR-URL      a release's folder, here or behind HTTP(S)
#     sh install.sh --uninstall
#     curl -fsSL URL/install.sh | sh -s -- URL
#
# Every file is compared with SHA256SUMS before anything is made of it. --sums is the checksum of that list itself, for
# those who know it from elsewhere. --wheelhouse is a folder with the distributions of requirements.txt (made by
# `pip download --require-hashes -r requirements.txt -d FOLDER`): with it nothing is asked of an index.
set -eu
umask 022

HOME_FOLDER=${TULLE_HOME:-"$HOME/.local/share/tulle-cli"}
BIN_FOLDER=${TULLE_BIN:-"$HOME/.local/bin"}
MARK=.tulle-installer

say() { echo "tulle: $*"; }
fail() {
    echo "tulle: $*" >&2
    exit 1
}

# All of it is one function, called by the last line: of a script that arrives in part nothing is run.
main() {
    wheelhouse='' sums='' from='' action=install
    while [ $# -gt 0 ]; do
        case $1 in
        --wheelhouse) wheelhouse=${2:?--wheelhouse needs a folder} && shift ;;
        --sums) sums=${2:?--sums needs a checksum} && shift ;;
        --uninstall) action=uninstall ;;
        -*) fail "there is no option $1: see the first lines of install.sh" ;;
        *) from=${1%/} ;;
        esac
        shift
    done
    refuse_foreign
    if [ "$action" = uninstall ]; then
        uninstall
        return
    fi
    [ -n "$from" ] || fail "say where the release is: sh install.sh FOLDER-OR-URL"
    [ -z "$wheelhouse" ] || [ -d "$wheelhouse" ] || fail "--wheelhouse $wheelhouse is no folder"
    python=$(find_python)
    command -v sha256sum >/dev/null || command -v shasum >/dev/null || fail "neither sha256sum nor shasum is here: install coreutils"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' HUP INT TERM
    take SHA256SUMS
    if [ -n "$sums" ] && [ "$(checksum "$work/SHA256SUMS")" != "$sums" ]; then
        fail "SHA256SUMS is not the one that --sums names: nothing was installed"
    fi
    take requirements.txt
    check requirements.txt
    wheels=$(sed -n 's/^[0-9a-f]\{64\}  \(tulle-[A-Za-z0-9._-]*\.whl\)$/\1/p' "$work/SHA256SUMS")
    [ -n "$wheels" ] || fail "SHA256SUMS of $from names no wheel: is that a release of Tulle?"
    mkdir "$work/wheels"
    for wheel in $wheels; do
        take "$wheel"
        check "$wheel"
        mv "$work/$wheel" "$work/wheels/"
    done
    version=$(echo "$wheels" | sed -n '1s/^tulle-\([^-]*\)-.*/\1/p')
    make_environment "$python" "$version"
    say "$version is installed: $BIN_FOLDER/tulle"
    case ":$PATH:" in
    *":$BIN_FOLDER:"*) say "next: tulle config explain" ;;
    *) say "next: $BIN_FOLDER/tulle config explain    ($BIN_FOLDER is not in PATH)" ;;
    esac
}

# A folder or a link that someone else made is never replaced or removed.
refuse_foreign() {
    if [ -e "$HOME_FOLDER" ] && [ ! -e "$HOME_FOLDER/$MARK" ]; then
        fail "$HOME_FOLDER is there and was not made by this installer: set TULLE_HOME to another folder"
    fi
    if [ -e "$BIN_FOLDER/tulle" ] || [ -L "$BIN_FOLDER/tulle" ]; then
        [ "$(readlink "$BIN_FOLDER/tulle" || true)" = "$HOME_FOLDER/current/bin/tulle" ] ||
            fail "$BIN_FOLDER/tulle is there and was not made by this installer: set TULLE_BIN to another folder"
    fi
}

uninstall() {
    if [ ! -e "$HOME_FOLDER" ]; then
        say "nothing is installed in $HOME_FOLDER"
        return
    fi
    rm -rf "$BIN_FOLDER/tulle" "$HOME_FOLDER"
    say "removed $BIN_FOLDER/tulle and $HOME_FOLDER"
}

find_python() {
    for name in ${TULLE_PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    fail "no Python from 3.11 on with venv and ensurepip is here (on Debian: apt-get install python3-venv), or name one in TULLE_PYTHON"
}

# Fetch or copy one file of the release into the work folder.
take() {
    case $from in
    http://* | https://*)
        if command -v curl >/dev/null; then
            curl --fail --silent --show-error --location --output "$work/$1" "$from/$1" || fail "$from/$1 cannot be fetched"
        elif command -v wget >/dev/null; then
            wget --quiet --output-document="$work/$1" "$from/$1" || fail "$from/$1 cannot be fetched"
        else
            fail "neither curl nor wget is here, and $from is behind HTTP: install one of them"
        fi
        ;;
    *) cp "$from/$1" "$work/$1" || fail "$from/$1 cannot be read: is $from a release's folder?" ;;
    esac
}

checksum() {
    if command -v sha256sum >/dev/null; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d ' ' -f 1
}

check() {
    wanted=$(sed -n "s/^\([0-9a-f]\{64\}\)  $1\$/\1/p" "$work/SHA256SUMS")
    [ -n "$wanted" ] || fail "SHA256SUMS of $from does not name $1: nothing was installed"
    found=$(checksum "$work/$1")
    [ "$found" = "$wanted" ] ||
        fail "$1 is not the file that was released (SHA-256 is $found, SHA256SUMS says $wanted): nothing was installed"
}

# A version is a folder of its own, which becomes the current one when it is whole.
make_environment() {
    new=$HOME_FOLDER/$2
    mkdir -p "$HOME_FOLDER" "$BIN_FOLDER"
    touch "$HOME_FOLDER/$MARK"
    sum=$(checksum "$work/SHA256SUMS")
    if [ "$(cat "$new/.whole" 2>/dev/null)" != "$sum" ]; then
        rm -rf "$new"
        "$1" -m venv "$new"
        if [ -n "$wheelhouse" ]; then index="--no-index --find-links $wheelhouse"; else index=''; fi
        # shellcheck disable=SC2086  # index is several words, or none
        "$new/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: $index \
            --requirement "$work/requirements.txt" || fail "the requirements could not be installed; $BIN_FOLDER/tulle is what it was"
        "$new/bin/python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --find-links "$work/wheels" "tulle==$2" ||
            fail "no wheel of $2 fits this Python; $BIN_FOLDER/tulle is what it was"
        "$new/bin/tulle" version --client >/dev/null || fail "the new tulle does not start; $BIN_FOLDER/tulle is what it was"
        echo "$sum" >"$new/.whole"
    fi
    ln -sfn "$new" "$HOME_FOLDER/current"
    ln -sfn "$HOME_FOLDER/current/bin/tulle" "$BIN_FOLDER/tulle"
    for old in "$HOME_FOLDER"/*/; do
        case ${old%/} in "$new" | "$HOME_FOLDER/current") ;; *) rm -rf "$old" ;; esac
    done
}

main "$@"
