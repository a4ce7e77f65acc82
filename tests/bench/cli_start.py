"""How fast the command line answers, side by side with Python itself and with a bare typer program.

    python tests/bench/cli_start.py

Bars: `--help` within 1.3 times a bare typer program, `--version` within 1.5 times `python -c pass`,
an answer to Tab within 150 ms.

What stands in `bin/flowctl` is written by the installer. That of pip before 25.2 imports `re`, which costs
more than flowctl's own answer; so beside the installed one a launcher as pip 25.2 and uv write it is
measured, and one that does nothing: the floor.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 15
SILENT = ("python -c pass", "an empty launcher")
BARE = """
import typer
app = typer.Typer()
@app.command()
def one(name: str): ...
@app.command()
def two(name: str): ...
app()
"""
FLOWCTL = str(Path(sys.executable).with_name("flowctl"))
ORDERS = Path(__file__).parents[1] / "cli" / "orders"
LAUNCHER = """#!{python}
import sys
{imports}
if __name__ == '__main__':
    sys.argv[0] = sys.argv[0].removesuffix('.exe')
    sys.exit(main())
"""
BARS = (
    ("today's launcher: --version", "python -c pass", 1.5),
    ("an empty launcher", "python -c pass", 1.5),
    ("flowctl --version", "python -c pass", 1.5),
    ("flowctl --help", "bare typer --help", 1.3),
    ("flowctl invoke --help", "bare typer one --help", 1.3),
)


def main() -> None:
    """Measure in turns, so that whatever else the machine does is shared by all; print medians and ratios."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(shutil.copytree(ORDERS, Path(folder) / "orders"))
        write_launchers(project)
        (project / "bare.py").write_text(BARE)
        subprocess.run(
            [FLOWCTL, "invoke", "squares", "--local"], cwd=project, check=True, capture_output=True
        )
        measured = measure(project)
    for name, times in measured.items():
        print(f"{name:<28} {statistics.median(times) * 1000:6.0f} ms   ({min(times) * 1000:.0f} at best)")
    for over, under, bar in BARS:
        ratio = statistics.median(measured[over]) / statistics.median(measured[under])
        print(f"{over} / {under}: {ratio:.2f} (bar {bar})")


def write_launchers(folder: Path) -> None:
    """Beside the one that is installed: one as new installers write it, one around nothing."""
    imports = {"todays": "from flowctl_cli.__main__ import main", "empty": "main = lambda: 0"}
    for name, line in imports.items():
        (folder / name).write_text(LAUNCHER.format(python=sys.executable, imports=line))
        (folder / name).chmod(0o755)


def measure(project: Path) -> dict[str, list[float]]:
    """Seconds by what was run."""
    bare = [sys.executable, "bare.py"]
    commands: dict[str, tuple[list[str], dict[str, str]]] = {
        "python -c pass": ([sys.executable, "-c", "pass"], {}),
        "an empty launcher": (["./empty"], {}),
        "today's launcher: --version": (["./todays", "--version"], {}),
        "flowctl --version": ([FLOWCTL, "--version"], {}),
        "bare typer --help": ([*bare, "--help"], {}),
        "flowctl --help": ([FLOWCTL, "--help"], {}),
        "bare typer one --help": ([*bare, "one", "--help"], {}),
        "flowctl invoke --help": ([FLOWCTL, "invoke", "--help"], {}),
        "Tab: commands": ([FLOWCTL], tab("flowctl in")),
        "Tab: workflow ids": ([FLOWCTL], tab("flowctl invoke sq")),
        "Tab: run ids": ([FLOWCTL], tab("flowctl resume ")),
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(ROUNDS):
        for name, (command, extra) in commands.items():
            began = time.perf_counter()
            done = subprocess.run(
                command, cwd=project, env={**os.environ, **extra}, check=True, capture_output=True
            )
            times[name].append(time.perf_counter() - began)
            assert done.stdout or name in SILENT, name
    return times


def tab(line: str) -> dict[str, str]:
    """What bash sets when Tab is pressed."""
    at = str(len(line.split(" ")) - 1)
    return {"_FLOWCTL_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": at}


if __name__ == "__main__":
    main()
