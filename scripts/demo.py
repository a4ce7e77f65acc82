"""The main job from nothing: scaffold the counter, serve it with the engine, run it to 10, stop."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

FLOWCTL = [sys.executable, "-m", "flowctl"]
READY_SECONDS = 60
RUN_SECONDS = 60
STOP_SECONDS = 20


def main() -> int:
    """Run the demo; answers the exit code."""
    folder = Path(tempfile.mkdtemp(prefix="flowctl-demo-"))
    project = folder / "counter-demo"
    try:
        show("flowctl create counter-demo")
        subprocess.run(
            [*FLOWCTL, "create", "counter-demo"], cwd=folder, check=True, stderr=subprocess.DEVNULL
        )
        show("flowctl dev &")
        dev = subprocess.Popen(
            [*FLOWCTL, "dev", "--port", "0", "--engine-port", "0"],
            cwd=project,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = threading.Timer(READY_SECONDS, dev.kill)
        deadline.start()
        try:
            wait_until_ready(dev)
            deadline.cancel()
            show("""flowctl invoke increment-workflow --data '{"value": 5}'""")
            arguments = ["invoke", "increment-workflow", "--data", '{"value": 5}']
            invoked = subprocess.run([*FLOWCTL, *arguments], cwd=project, timeout=RUN_SECONDS, check=False)
        finally:
            dev.send_signal(signal.SIGINT)
            _, rest = dev.communicate(timeout=STOP_SECONDS)
            sys.stderr.write(rest)
        sys.stderr.write("\nStopped. To keep it running, do the same in a folder of yours:\n")
        sys.stderr.write("  flowctl create my-app && cd my-app && flowctl dev\n")
        return invoked.returncode or dev.returncode
    finally:
        shutil.rmtree(folder)


def show(command: str) -> None:
    """What a user would type."""
    sys.stderr.write(f"\n$ {command}\n")
    sys.stderr.flush()


def wait_until_ready(dev: subprocess.Popen[str]) -> None:
    """Pass the server's lines on until it says that it is ready."""
    assert dev.stderr is not None
    for line in dev.stderr:
        sys.stderr.write(line)
        if "ready in" in line:
            return
    raise SystemExit(f"flowctl dev was not ready within {READY_SECONDS} seconds, or ended before.")


if __name__ == "__main__":
    sys.exit(main())
