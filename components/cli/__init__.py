"""The `tulle` command. Each subcommand is a module of its own, imported only when it is called; `main.py` has their
list.

What decides (`queries`, `documents`, `judge`) is pure; what asks a cluster (`access`, `prometheus`) is apart from it.
"""
