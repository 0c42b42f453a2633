"""The one error that is the user's to mend, and what others say."""


class UserError(Exception):
    """One line: what is wrong, with the path or flag, and what to do. main.py exits with 1."""


def first_line(error: BaseException) -> str:
    """What an error says, or else what it is called, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
