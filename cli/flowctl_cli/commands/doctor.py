"""`flowctl doctor`: checks of everything that flowctl needs."""

from __future__ import annotations

from dataclasses import asdict

from flowctl_cli.checks import Finding, examine, summary
from flowctl_cli.console import result, say, style, text
from flowctl_cli.options import AppName, Dir, EnvFile, Json

MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "problem": ("✗", "red")}


def command(
    as_json: Json = False, directory: Dir = None, app: AppName = None, env_file: EnvFile = None
) -> int:
    """Check Python, installation, project, environment, app, storage, ports, Docker and engine.

    What is wrong is said with how to mend it. Warnings are about what may be left as it is.

    Exit codes: 0 nothing is wrong, 1 something is.

    Examples:

      flowctl doctor

      flowctl doctor --json
    """
    findings: list[Finding] = []
    for finding in examine(directory, app, env_file):
        findings.append(finding)
        if not as_json:
            _show(finding)
    problems = summary(findings)["problem"]
    if as_json:
        result({"ok": problems == 0, "checks": [asdict(finding) for finding in findings]})
    elif problems:
        say(style(f"\n{problems} {'problem' if problems == 1 else 'problems'} to mend.", "red"))
    else:
        say(style("\nNothing is wrong.", "green"))
    return 1 if problems else 0


def _show(finding: Finding) -> None:
    mark, colour = MARKS[finding.status]
    first, *more = finding.says.splitlines()
    text(f"{style(mark, colour)} {finding.check:<12}  {first}")
    for line in more:
        text(f"    {line}")
    if finding.mend:
        text(f"    {style(finding.mend, 'bold')}")
