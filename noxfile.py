"""The suite on other versions of Python, and with the lowest versions of what ismcore needs: `nox -l` lists the sessions.

torch is what pip finds, on Linux with gigabytes of CUDA; with `PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu`, or
`UV_EXTRA_INDEX_URL` for `lowest`, it is the build for processors alone. `ISMCORE_NOX_TORCH` is a requirement to install in its
place, such as `torch==2.13.0`, or `none`: then what needs torch is skipped, and named as such.
"""

import os

import nox

nox.options.default_venv_backend = "venv"
nox.options.sessions = ["tests-3.12", "tests-3.13", "lowest"]
TORCH = os.environ.get("ISMCORE_NOX_TORCH", "torch")


def suite(session: nox.Session, *install: str) -> None:
    """Installs ismcore by the command, says what was found, and runs the suite."""
    needed = [".[jax,plot,test]"] if TORCH == "none" else [".[all,test]", TORCH]
    session.run(*install, "-e", *needed)
    session.run("python", "-m", "pip", "list")
    session.run("python", "-m", "pytest", *session.posargs, env={"ISMCORE_TESTS_WITHOUT": "torch"} if TORCH == "none" else {})


@nox.session(python=["3.12", "3.13"])
def tests(session: nox.Session) -> None:
    """The suite with the newest of everything."""
    suite(session, "python", "-m", "pip", "install")


@nox.session(python="3.11")
def lowest(session: nox.Session) -> None:
    """The suite with the lowest versions of what `pyproject.toml` names."""
    session.install("uv")
    # matplotlib below 3.10.7 calls pyparsing by names of which its 3.3 warns
    suite(session, "uv", "pip", "install", "--resolution", "lowest-direct", "pyparsing>=3.2,<3.3")
