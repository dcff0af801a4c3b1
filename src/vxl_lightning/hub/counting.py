"""Numbers in English words, as prompts write them."""

ONES = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
TENS = ["", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def in_words(number: int) -> str:
    """Such as "one thousand, two hundred and thirty-four".

    Args:
        number: from nought to 999 999.
    """
    if number < 20:
        return ONES[number]
    if number < 100:
        ten, one = divmod(number, 10)
        return TENS[ten] + (f"-{ONES[one]}" if one else "")
    unit, name = (100, "hundred") if number < 1000 else (1000, "thousand")
    many, rest = divmod(number, unit)
    # "and" stands before the last two digits, a comma before hundreds.
    joint = " and " if rest < 100 else ", "
    return f"{in_words(many)} {name}" + (joint + in_words(rest) if rest else "")
