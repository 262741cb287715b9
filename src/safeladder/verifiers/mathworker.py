"""A child process that compares mathematical expressions with math-verify: one JSON request a line on stdin.

Run as a script, never imported by the parent: symbolic algebra can hang or eat memory, and only a process of
its own can be killed for it. It imports nothing of this package, so that it starts fast.
"""

from __future__ import annotations

import json
import resource
import signal
import sys

MEMORY_LIMIT = 2 * 1024**3


def main() -> None:
    """Answer each ``{"gold", "answer", "seconds"}`` with ``{"equal": bool}`` or ``{"error": class name}``."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    from math_verify import parse, verify

    replies, sys.stdout = sys.stdout, sys.stderr  # a library's prints must not end up among the replies
    for line in sys.stdin:
        request = json.loads(line)
        # The default action of SIGALRM ends this process: it never outlives a parent that was killed
        # meanwhile.
        signal.alarm(int(request["seconds"]) + 5)
        try:
            gold = parse(f"${request['gold']}$", parsing_timeout=0)
            answer = parse(f"${request['answer']}$", parsing_timeout=0)
            reply = {"equal": bool(gold and answer and verify(gold, answer, timeout_seconds=None))}
        except Exception as error:  # sympy raises anything; the parent counts the answer as unscored
            reply = {"error": type(error).__name__}
        signal.alarm(0)
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
