"""Exit codes of the command line. ``mlengine --help`` and the reference print the table below."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a command returns to the shell."""

    OK = 0
    FAILED = 1
    USAGE = 2
    JOB_FAILED = 3
    NOT_ACCEPTED = 4
    DIFFERENT = 5
    INTERRUPTED = 130
    OUTPUT_CLOSED = 141
    TERMINATED = 143


MEANINGS = {
    ExitCode.OK: "The command succeeded.",
    ExitCode.FAILED: "The command failed; stderr says why.",
    ExitCode.USAGE: "Wrong usage: invalid arguments or job file. Nothing was changed.",
    ExitCode.JOB_FAILED: "The job did not succeed (train, rerun), or was not cancelled (cancel).",
    ExitCode.NOT_ACCEPTED: "The model was not accepted (validate) or not published (publish).",
    ExitCode.DIFFERENT: "Dataset versions differ (diff), or files are damaged (verify).",
    ExitCode.INTERRUPTED: "Interrupted with Ctrl-C. Jobs that were submitted continue.",
    ExitCode.OUTPUT_CLOSED: "The reader closed stdout, as `| head` does.",
    ExitCode.TERMINATED: "Terminated by SIGTERM.",
}


def table() -> str:
    """The exit codes, one per line, for a help text."""
    return "\n".join(f"  {code:>3}  {meaning}" for code, meaning in MEANINGS.items())
