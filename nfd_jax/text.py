"""Text for a terminal: nothing in a name or a message of others may steer it."""


def printable(text: object) -> str:
    """The text with what no terminal shows, escape sequences above all, written out."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in str(text))
