"""The suite on other versions of Python, and with the lowest versions of what ismcore needs: `nox -l` lists the sessions.

On Linux torch is gigabytes of CUDA, unless `UV_TORCH_BACKEND=cpu` asks for the build for processors alone. `ISMCORE_NOX_TORCH`
is a requirement in its place, such as `torch==2.13.0`, or `none`: then what needs torch is skipped, and named as such.
"""

import os

import nox

nox.options.default_venv_backend = "venv"
nox.options.sessions = ["tests-3.12", "tests-3.13", "lowest"]
TORCH = os.environ.get("ISMCORE_NOX_TORCH", "torch")


def suite(session: nox.Session, *options: str) -> None:
    """Installs ismcore by these options of uv, says what was found, and runs the suite."""
    session.install("uv")
    needed = [".[jax,plot,test]"] if TORCH == "none" else [".[all,test]", TORCH]
    session.run_install("uv", "pip", "install", *options, "-e", *needed)
    session.run("uv", "pip", "list")
    session.run("python", "-m", "pytest", *session.posargs, env={"ISMCORE_TESTS_WITHOUT": "torch"} if TORCH == "none" else {})


@nox.session(python=["3.12", "3.13"])
def tests(session: nox.Session) -> None:
    """The suite with the newest of everything."""
    suite(session)


@nox.session(python="3.11")
def lowest(session: nox.Session) -> None:
    """The suite with the lowest versions of what `pyproject.toml` names."""
    suite(session, "--resolution", "lowest-direct")
