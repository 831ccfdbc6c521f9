# Copyright: the Tulle authors. Apache-2.0, see LICENSE at the root of the repository.
"""Run a long command and say how it gets on: Ansible itself is silent until a task ends."""

from __future__ import annotations

import shlex
import time

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

# How often it is looked whether the command has ended: the most that a short one is held up.
LOOK_SECONDS = 1.0
# The end of the log that goes into the message of a failure.
TAIL_LINES = 15


class ActionModule(ActionBase):
    """Starts an ordinary background job, asks after it, and cleans up behind it."""

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        _, options = self.validate_argument_spec(
            argument_spec={
                "argv": {"type": "list", "elements": "str", "required": True},
                "chdir": {"type": "path", "required": True},
                "log": {"type": "path", "required": True},
                "what": {"type": "str", "required": True},
                "unit": {"type": "str", "default": "lines"},
                "every": {"type": "int", "default": 30},
                "limit": {"type": "int", "default": 3600},
            }
        )
        if self._task.check_mode:
            return {**result, "skipped": True, "msg": "a command is not run in check mode"}
        began = time.monotonic()
        job = self._start(options, task_vars)
        if "ansible_job_id" not in job:
            return {**result, **job, "failed": True}
        told = began
        while True:
            time.sleep(LOOK_SECONDS)
            state = self._ask(job["ansible_job_id"], "status", task_vars)
            now = time.monotonic()
            if state.get("finished"):
                break
            if now - told >= options["every"]:
                told = now
                self._tell(options, int(now - began), task_vars)
        self._ask(job["ansible_job_id"], "cleanup", task_vars)
        if state.get("failed") or state.get("rc", 0) != 0:
            tail = self._shell(f"tail -n {TAIL_LINES} {shlex.quote(options['log'])}", task_vars)
            reason = tail or state.get("msg", "it said nothing")
            return {**result, "failed": True, "msg": f"{options['what']}: {reason} (all of it: {options['log']})"}
        return {**result, "changed": True, "seconds": int(time.monotonic() - began)}

    def _start(self, options, task_vars):
        line = f"{shlex.join(options['argv'])} > {shlex.quote(options['log'])} 2>&1"
        arguments = {"_raw_params": line, "_uses_shell": True, "chdir": options["chdir"]}
        # The executor polls a task whose own limit is set; this one is polled here, so it is set for the start alone.
        self._task.async_val = options["limit"]
        try:
            return self._execute_module("ansible.legacy.command", arguments, task_vars=task_vars, wrap_async=True)
        finally:
            self._task.async_val = 0

    def _ask(self, job, mode, task_vars):
        folder = self._remote_expand_user(self.get_shell_option("async_dir", default="~/.ansible_async"))
        arguments = {"jid": job, "mode": mode, "_async_dir": folder}
        return self._execute_module("ansible.legacy.async_status", arguments, task_vars=task_vars)

    def _tell(self, options, seconds, task_vars):
        lines = self._shell(f"wc -l < {shlex.quote(options['log'])}", task_vars) or "0"
        Display().display(
            f"    {options['what']}: {seconds // 60} min {seconds % 60:02d} s, {lines.strip()} {options['unit']}"
        )

    def _shell(self, line, task_vars):
        arguments = {"_raw_params": line, "_uses_shell": True}
        return self._execute_module("ansible.legacy.command", arguments, task_vars=task_vars).get("stdout", "")
