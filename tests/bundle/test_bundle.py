"""`flowctl build`: what a bundle has, what it leaves out, and what it refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from flowctl_cli.pins import BuildError, pinned
from tests.cli.conftest import flowctl, result_of


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_bundle_has_the_source_and_no_secrets_tests_or_caches(bundle: Path) -> None:
    assert {name for name in contents(bundle) if name.startswith("project/")} == {
        "project/README.md",
        "project/pyproject.toml",
        *(f"project/my_counter/{m}.py" for m in ("__init__", "app", "client", "functions", "workflows")),
    }
    assert all(b"SECRET" not in data for data in contents(bundle).values())


def test_requirements_are_pinned_exactly_and_flowctl_comes_as_a_wheel(bundle: Path) -> None:
    lines = (bundle / "requirements.txt").read_text().splitlines()
    local = [line for line in lines if line.startswith("./wheels/flowctl_workflows-")]
    assert len(local) == 1
    assert (bundle / local[0]).is_file()
    assert all(re.fullmatch(r"[a-z0-9-]+==\S+", line) for line in lines if line not in local)
    assert {"inngest", "pydantic-core", "uvloop"} <= {line.partition("==")[0] for line in lines}


def test_the_manifest_describes_workflows_and_functions(bundle: Path) -> None:
    manifest = json.loads((bundle / "flowctl.json").read_text())
    assert manifest["app"] == "my_counter.app:app"
    assert "value" in manifest["workflows"]["increment-workflow"]["inputSchema"]["properties"]
    assert {"workflow.increment-workflow", "send-welcome-email"} <= {f["id"] for f in manifest["functions"]}


def test_two_builds_are_byte_identical_and_no_scratch_folder_stays(counter: Path, bundle: Path) -> None:
    before, beside = contents(bundle), set(counter.iterdir())
    assert flowctl("build", cwd=counter).returncode == 0
    assert contents(bundle) == before
    assert set(counter.iterdir()) == beside


def test_a_changed_source_changes_the_content_hash(counter: Path, tmp_path: Path, bundle: Path) -> None:
    (counter / "my_counter" / "extra.py").write_text("ADDED = True\n")
    built = result_of(flowctl("build", "--json", "--out", str(tmp_path / "out"), cwd=counter))
    (counter / "my_counter" / "extra.py").unlink()
    assert "project/my_counter/extra.py" in built["files"]
    assert built["contentHash"] != json.loads((bundle / "flowctl.json").read_text())["contentHash"]


def test_a_bundle_that_does_not_boot_leaves_the_old_one(counter: Path, bundle: Path) -> None:
    before = contents(bundle)
    app = counter / "my_counter" / "app.py"
    good = app.read_text()
    app.write_text(f"{good}\nimport os\nassert os.environ.get('FLOWCTL_ENV') != 'production', 'not here'\n")
    failed = flowctl("build", cwd=counter)
    app.write_text(good)
    assert failed.returncode == 1
    assert "AssertionError: not here" in failed.stderr
    assert contents(bundle) == before


def test_a_folder_that_is_no_bundle_is_not_replaced(counter: Path) -> None:
    refused = flowctl("build", "--out", "my_counter", cwd=counter)
    assert (refused.returncode, "is no bundle" in refused.stderr) == (1, True)
    assert (counter / "my_counter" / "app.py").is_file()


def test_a_place_that_cannot_be_written_to_is_named_with_the_way_out(counter: Path) -> None:
    refused = flowctl("build", "--out", "/dev/null/a/bundle", cwd=counter)
    assert refused.returncode == 1
    assert "Cannot write the bundle to '/dev/null/a/bundle': Not a directory. Choose" in refused.stderr


def test_a_dependency_that_is_not_installed_is_named(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="my-app needs 'no-such-thing'"):
        pinned(["no-such-thing>=1"], project="my-app", wheels=tmp_path / "wheels")


def test_a_requirement_of_another_platform_is_left_out(tmp_path: Path) -> None:
    text = pinned(["no-such-thing; sys_platform == 'never'", "idna"], project="p", wheels=tmp_path / "w")
    assert re.fullmatch(r"idna==\S+\n", text)


def test_what_came_from_a_repository_is_packed_again_as_a_wheel_that_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, info = tmp_path / "site", "local_thing-1.0.dist-info"
    files = {
        "local_thing.py": "ANSWER = 42\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: local-thing\nVersion: 1.0\nRequires-Dist: idna\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/direct_url.json": '{"url": "https://example.com/r.git", "vcs_info": {"vcs": "git"}}',
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    for name, text in files.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text)
    monkeypatch.syspath_prepend(str(site))
    text = pinned(["local-thing"], project="p", wheels=tmp_path / "wheels")
    wheel = tmp_path / "wheels" / "local_thing-1.0-py3-none-any.whl"
    assert re.fullmatch(rf"idna==\S+\n\./wheels/{wheel.name}\n", text)
    with zipfile.ZipFile(wheel) as archive:
        assert set(archive.namelist()) == set(files) - {f"{info}/direct_url.json"}
    run = [sys.executable, "-c", "import local_thing; print(local_thing.ANSWER)"]
    shown = subprocess.run(run, env={"PYTHONPATH": str(wheel)}, capture_output=True, text=True, check=True)
    assert shown.stdout == "42\n"
