#!/usr/bin/python
# Copyright: the Tulle authors. Apache-2.0, see LICENSE at the root of the repository.
"""The documentation of an action: plugins/action/watched.py has what it does."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: watched
short_description: Run a long command and say how it gets on
version_added: "0.1.0"
description:
  - Runs a command in the background, with what it prints in a log file, and prints a line now and then with the time
    gone and how many lines there are in the log, so that a build of many minutes is seen to be alive.
  - On failure the end of the log is part of the message.
options:
  argv:
    description: The command and its arguments.
    type: list
    elements: str
    required: true
  chdir:
    description: The folder to run it in.
    type: path
    required: true
  log:
    description: The file that holds what it prints. An earlier one is replaced.
    type: path
    required: true
  what:
    description: What is said to be going on.
    type: str
    required: true
  unit:
    description: What a line of the log stands for.
    type: str
    default: lines
  every:
    description: The seconds between two lines.
    type: int
    default: 30
  limit:
    description: The seconds after which it is given up.
    type: int
    default: 3600
author:
  - The Tulle authors (@tulle)
"""

EXAMPLES = r"""
- name: Build
  tulle.mesh.watched:
    argv: [make, all]
    chdir: /usr/src/example
    log: /var/log/example-build.log
    what: building the example
"""

RETURN = r"""
seconds:
  description: How long it took.
  type: int
  returned: success
"""
