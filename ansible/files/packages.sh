#!/bin/sh
# Installs the system packages that building and testing need, or says exactly which are missing where it may not.
# Idempotent and quiet when there is nothing to do. Never removes a package that is installed.
set -eu

needed="ca-certificates gcc libc6-dev make libnghttp2-dev libssl-dev iproute2 iptables tcpdump tshark wrk nginx-light nghttp2-client"
case "${PYTHON:-python3}" in
    /*|*/*) ;;
    *)
        # A Python from elsewhere (pyenv, a build of one's own) brings venv and headers itself.
        if ! "${PYTHON:-python3}" -c 'import venv, ensurepip, sysconfig, os, sys; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' 2>/dev/null; then
            needed="$needed python3 python3-venv python3-dev"
        fi
        ;;
esac

if ! command -v dpkg-query >/dev/null 2>&1; then
    for command in gcc make ip iptables; do
        command -v "$command" >/dev/null 2>&1 || missing="${missing:-} $command"
    done
    if [ -n "${missing:-}" ]; then
        echo "setup: this is not Debian or Ubuntu; install these yourself:$missing, and the headers of libnghttp2, OpenSSL >= 3.0 and Python >= 3.11" >&2
        exit 1
    fi
    exit 0
fi

missing=""
for package in $needed; do
    state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing="$missing $package"
done
[ -z "$missing" ] && exit 0

if [ "$(id -u)" -ne 0 ]; then
    echo "setup: not root, so nothing is installed. Run: sudo apt-get install --no-install-recommends$missing" >&2
    exit 1
fi
echo "setup: installing$missing"
export DEBIAN_FRONTEND=noninteractive
# Packages that bring a service must not start it: tests run their own, with their own configuration.
guard=/usr/sbin/policy-rc.d
if [ ! -e "$guard" ]; then
    printf '#!/bin/sh\nexit 101\n' > "$guard"
    chmod 755 "$guard"
    trap 'rm -f "$guard"' EXIT
fi
apt-get update -qq
# shellcheck disable=SC2086 # a list of names
apt-get install -y -qq --no-install-recommends --no-remove $missing >/dev/null
