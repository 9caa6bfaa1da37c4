"""The command `ismcore`, run in this process."""

from ismcore.cli.main import main


def run(capsys, *words):
    """Exit code, standard output and standard error of `ismcore WORDS`."""
    capsys.readouterr()
    try:
        code = main([str(word) for word in words])
    except SystemExit as end:
        code = end.code
    out, err = capsys.readouterr()
    return code, out, err
