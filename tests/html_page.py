"""Parsed HTML pages, for tests."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """Tags with attributes, text, and tables by caption."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.tables = [], [], {}
        self.rows, self.caption, self.open = [], None, []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)
        if tag == "table":
            self.rows, self.caption = [], None
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass
        if tag == "table":
            self.tables.setdefault(self.caption, self.rows)

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.text.append(data)
        if "caption" in self.open:
            self.caption = data
        elif "small" in self.open and "table" in self.open:
            self.rows[-1][-1] += f" | {data}"
        elif ("td" in self.open or "th" in self.open) and "svg" not in self.open:
            self.rows[-1][-1] += data

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())
