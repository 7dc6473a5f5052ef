"""Makes `.venv` with the pinned requirements; standard library only.

    python3 tools/bootstrap.py

Uses uv if it is there, else pip: a venv's own pip, or that of the Python at hand where
the system's Python has no ensurepip. Done once; the stamp in `.venv` holds the hash of
what was installed, so that a second call returns at once and a changed lock installs
again. A call that was killed half-way leaves no stamp and is simply made again.
"""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOCK = ROOT / "requirements.txt"
OLDEST = (3, 11)


def main() -> int:
    """Returns the exit code: 0 if the environment is ready."""
    if sys.version_info < OLDEST:
        found = ".".join(map(str, sys.version_info[:3]))
        return _fail(
            f"big_mm needs Python 3.11 or newer: {sys.executable} is {found}. Give "
            "another: make quickstart PYTHON=python3.12"
        )
    stamp = VENV / ".installed"
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    wanted = hashlib.sha256(LOCK.read_bytes() + version.encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted and PYTHON.exists():
        return 0
    stamp.unlink(missing_ok=True)
    print("Setting up .venv with the pinned requirements ...", flush=True)
    try:
        install(shutil.which("uv"))
    except (OSError, subprocess.CalledProcessError) as error:
        return _fail(
            f"the set-up did not finish: {error}. The same command tries again."
        )
    stamp.write_text(wanted)
    return 0


def install(uv: str | None) -> None:
    """Creates the environment and installs the lock into it."""
    shutil.rmtree(VENV, ignore_errors=True)
    if uv is not None:
        _run(uv, "venv", "--quiet", "--python", sys.executable, str(VENV))
        _run(uv, "pip", "install", "--quiet", "--python", str(PYTHON), "-r", str(LOCK))
        return
    # Without ensurepip (Debian), the pip at hand installs into the new environment.
    _run(sys.executable, "-m", "venv", "--without-pip", str(VENV))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    if subprocess.run([*pip, "--version"], capture_output=True).returncode:
        raise OSError(
            f"neither uv nor pip is there for {sys.executable} (Debian: apt install "
            "python3-pip)"
        )
    _run(*pip, "--python", str(PYTHON), "install", "--quiet", "-r", str(LOCK))


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def _fail(reason: str) -> int:
    print(f"bootstrap: {reason}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
