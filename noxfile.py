"""The suite on other versions of Python, and with the lowest versions of what ismcore needs: `nox -l` lists the sessions."""

import nox

nox.options.default_venv_backend = "venv"
nox.options.sessions = ["tests-3.12", "tests-3.13", "lowest"]


@nox.session(python=["3.12", "3.13"])
def tests(session: nox.Session) -> None:
    """The suite with the newest of everything."""
    session.install("-e", ".[all,test]")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session(python="3.11")
def lowest(session: nox.Session) -> None:
    """The suite with the lowest versions of what `pyproject.toml` names."""
    session.install("uv")
    session.run("uv", "pip", "install", "--resolution", "lowest-direct", "-e", ".[all,test]")
    session.run("python", "-m", "pytest", *session.posargs)
