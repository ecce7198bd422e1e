"""Tables from sections, and the same numbers in every format."""
