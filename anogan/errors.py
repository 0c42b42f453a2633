"""The one error that is the user's to mend."""


class UserError(Exception):
    """One line: what is wrong, with the path or flag, and what to do. main.py exits with 1."""
