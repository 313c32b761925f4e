"""A command says in a line what its user can mend, and its exit status says how it ended."""

import pytest

from medusa_core import commands, runtime


def ending(error):
    def work():
        if error is not None:
            raise error

    return work


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (None, 0, ""),
        (ValueError("too small"), 1, "error: too small\n"),
        (OSError("no space"), 1, "error: no space\n"),
        (runtime.StartError("no C++ compiler"), 1, "error: no C++ compiler\n"),
        (KeyboardInterrupt(), 130, "\nInterrupted; the same command goes on.\n"),
    ],
)
def test_what_can_be_mended_is_a_line_and_a_status(error, status, said, capsys):
    assert commands.finish(ending(error), commands.GOES_ON) == status
    assert capsys.readouterr().err == said


def test_other_errors_keep_their_traceback_but_those_that_a_command_names():
    with pytest.raises(RuntimeError, match="cublas"):
        commands.finish(ending(RuntimeError("cublas")))
    assert commands.finish(ending(RuntimeError("cublas")), errors=(RuntimeError,)) == 1
