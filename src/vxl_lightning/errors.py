"""The one error a user may see without a traceback."""


class UserError(ValueError):
    """Something the user wrote or pointed at is wrong.

    The message is one line that names the key or record, the value, what is allowed and
    the fix. The command line prints it and exits with code 2; library code lets it rise
    as the ``ValueError`` it is.
    """
