#!/bin/sh
# Installs the system packages that building and testing need, or says exactly which are missing where it may not.
# Idempotent and quiet when there is nothing to do. Never removes a package that is installed.
set -eu

python=${PYTHON:-python3}
needed="ca-certificates gcc libc6-dev make libnghttp2-dev libssl-dev iproute2 iptables wrk nginx-light nghttp2-client curl openssl redis-server"

# What a compiled proxy in an environment of its own takes of an interpreter.
python_is_complete() {
    "$python" -c 'import venv, ensurepip, sysconfig, os, sys
sys.exit(sys.version_info < (3, 11) or not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' 2>/dev/null
}

# Whether the compiler finds a header, and what is said after it holds.
has_header() {
    printf '#include <%s>\n%s\n' "$1" "${2:-}" | gcc -E - >/dev/null 2>&1
}

if ! command -v dpkg-query >/dev/null 2>&1; then
    missing=""
    lacks() { missing="$missing
  $1"; }
    for command in gcc make ip iptables; do
        command -v "$command" >/dev/null 2>&1 || lacks "$command"
    done
    # shellcheck disable=SC2310 # a failure is the answer
    has_header stdlib.h || lacks "the headers of the C library (glibc-devel)"
    # shellcheck disable=SC2310
    has_header openssl/ssl.h '#if OPENSSL_VERSION_NUMBER < 0x30000000L
#error old
#endif' || lacks "the headers of OpenSSL, 3.0 or later (Fedora openssl-devel, SUSE libopenssl-3-devel)"
    # shellcheck disable=SC2310
    has_header nghttp2/nghttp2.h || lacks "the headers of libnghttp2 (Fedora libnghttp2-devel, SUSE libnghttp2-devel)"
    # shellcheck disable=SC2310
    python_is_complete || lacks "Python, 3.11 or later, with venv and headers (Fedora python3-devel, SUSE python311-devel), or PYTHON=/path/to/another"
    if [ -n "$missing" ]; then
        echo "setup: this is not Debian or Ubuntu; install these yourself:$missing" >&2
        exit 1
    fi
    exit 0
fi

case $python in
    # A Python from elsewhere (pyenv, a build of one's own) brings venv and headers itself.
    */*) ;;
    *)
        # shellcheck disable=SC2310
        python_is_complete || needed="$needed python3 python3-venv python3-dev"
        ;;
esac

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
