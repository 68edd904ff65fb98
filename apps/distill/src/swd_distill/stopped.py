"""The end of a run that was asked to stop: apart from `stopping`, for the command line, which imports no torch."""


class Stopped(Exception):  # noqa: N818  no error
    """The run is saved, and exits with the code that shells know for its signal."""

    def __init__(self, step: int, total: int, signal: int, student: str = "") -> None:
        """Take the step and their number, the signal, and whose student it is where a model has two."""
        of = f"the {student} student stopped" if student else "stopped"
        super().__init__(f"{of} and saved at step {step} of {total}: the same command goes on from there")
        self.code = 128 + signal
