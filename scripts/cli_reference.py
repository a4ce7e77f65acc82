"""Write what is made from the parsers of the command line: docs/cli.md, and the table for completion."""

from __future__ import annotations

import json
from pathlib import Path

from flowctl_cli.completion import TABLE
from flowctl_cli.reference import completions, markdown

PAGE = Path(__file__).parent.parent / "docs" / "cli.md"

if __name__ == "__main__":
    PAGE.write_text(markdown())
    TABLE.write_text(json.dumps(completions(), ensure_ascii=False, indent=1) + "\n")
