"""Numbers as the tables of a report write them."""


def number(value: float) -> str:
    """Three digits, without the zero before the point."""
    return f"{value:.3f}".lstrip("0") if 0 <= value < 1 else f"{value:.3f}"


def p_value(value: float | None) -> str:
    """Three digits, or a power of ten where it is small."""
    if value is None:
        return ""
    return f"{value:.0e}" if value < 0.001 else f"{value:.3f}"
