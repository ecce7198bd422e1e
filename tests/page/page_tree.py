"""A page as a tree that tests can look into, by the parser of the standard library."""

from html.parser import HTMLParser
from xml.etree.ElementTree import Element, TreeBuilder

VOID = {"meta", "link", "input", "img", "br", "hr"}


class _Reader(HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.tree = TreeBuilder()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tree.start(tag, {name: value or "" for name, value in attrs})
        if tag in VOID:
            self.tree.end(tag)
        else:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()
        self.tree.end(tag)

    def handle_data(self, data):
        if self.open:
            self.tree.data(data)


def tree(page: str) -> Element:
    """The root of `page`; fails where a tag is not closed as it was opened."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    assert not reader.open
    return reader.tree.close()


def words(element: Element) -> str:
    """What is seen of an element: without what only a screen reader says."""
    found = element.text or ""
    for child in element:
        if "sr" not in child.get("class", "").split():
            found += words(child)
        found += child.tail or ""
    return found


def grids(root: Element) -> list[list[list[str]]]:
    """The body cells of each table."""
    return [
        [[words(cell) for cell in row] for body in table.iter("tbody") for row in body]
        for table in root.iter("table")
    ]
