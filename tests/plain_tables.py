"""Reads the tables that flowbench prints where there is no terminal."""

import re

RULE = re.compile(r"-+(  -+)*")


def rows(output):
    """The cells of each line below a rule, up to an empty line; notes are among them."""
    found, spans = [], []
    for line in output.splitlines():
        if RULE.fullmatch(line):
            spans = [match.span() for match in re.finditer("-+", line)]
        elif not line:
            spans = []
        elif spans:
            found.append([line[begin:end].strip() for begin, end in spans])
    return found
