"""Types of command line arguments that several commands take."""

import argparse


def whole_number(text: str) -> int:
    """A whole number of 1 or more.

    Raises:
        ArgumentTypeError: something else.

    Example:
        >>> whole_number("8")
        8
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number of 1 or more")
    return int(text)


def whole_numbers(text: str) -> list[int]:
    """Whole numbers of 1 or more: ``1,2,4``.

    Raises:
        ArgumentTypeError: one is something else.

    Example:
        >>> whole_numbers("1, 2,4")
        [1, 2, 4]
    """
    try:
        return [whole_number(part.strip()) for part in text.split(",")]
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}; expected, say, 1,2,4") from None


def rows_and_columns(text: str) -> tuple[int, int]:
    """The size of an image: ``256x192``.

    Raises:
        ArgumentTypeError: anything but two whole numbers of 1 or more.

    Example:
        >>> rows_and_columns("256x192")
        (256, 192)
    """
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"'{text}' is no size; expected rows x columns, say 256x192")
    return int(parts[0]), int(parts[1])
