"""`python3 -m proxy.redirect`: the init container. Reads arguments, applies or checks or prints, says what it did.

Exit codes: 0 in place, 1 not in place and not possible, 64 an argument that cannot be used.
"""

import sys
from typing import Final

from proxy.redirect import apply, rules
from proxy.redirect.arguments import ArgumentsError, parser, redirection_from
from proxy.settings import EXIT_BAD_SETTING

PROG: Final = "proxy.redirect"


def main(arguments: list[str]) -> int:
    """Do what the arguments say."""
    known = parser(PROG, "Lead a pod's TCP through its proxy.")
    known.add_argument("--remove", action="store_true", help="take the rules away; nothing to take is as good")
    known.add_argument("--check", action="store_true", help="change nothing; exit 0 only if the rules are in place")
    known.add_argument("--print", action="store_true", help="show the rules and change nothing")
    try:
        options = known.parse_args(arguments)
        redirection = redirection_from(options)
    except ArgumentsError as error:
        print(f"{PROG}: {error}", file=sys.stderr)
        return EXIT_BAD_SETTING
    versions = apply.versions()
    if options.print:
        for version in versions:
            print(f"# IPv{version}", *rules.restore_lines(redirection, version), sep="\n")
        return 0
    try:
        for version in versions:
            if options.remove:
                for backend in apply.remove(options.mode, version, print):
                    print(f"IPv{version}: removed with {backend.name}")
            elif options.check:
                backend = apply.check(redirection, options.mode, version)
                print(f"IPv{version}: redirected by {backend.name}")
            else:
                backend = apply.apply(redirection, options.mode, version, print)
                print(f"IPv{version}: set with {backend.name}")
    except apply.RedirectError as error:
        print(f"{PROG}: {error}", file=sys.stderr)
        return 1
    if 6 not in versions and not options.remove:
        print("IPv6: this pod has no address, so there is nothing to redirect")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
