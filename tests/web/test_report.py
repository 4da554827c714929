from base64 import b64decode
from html.parser import HTMLParser

from fovea.search.clip.evaluation.examples import ExampleQuery, ModelAnswer, ShownImage
from fovea.web.report import Report, page

EVIL = "<script>alert(1)</script>\"'&\x1b[31m\udcff"


def shown(name, is_right=False):
    return ShownImage(name, name.encode("utf-8", "backslashreplace"), is_right)


def report(models=("one",), name="a.jpg", query="a dog"):
    right = shown("right.jpg", True)
    answers = tuple(
        ModelAnswer(rank, (shown(name), right) if rank == 2 else (shown(name),))
        for rank in range(2, 2 + len(models))
    )
    figures = [{"images": 1000, "recall@10": 0.1234} for _ in models]
    return Report(models, figures, [ExampleQuery(query, right, answers)], 1000, "x.tar")


class Reader(HTMLParser):
    """Notes the elements, their attributes and the text of a page."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.words = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)


def test_a_page_holds_its_pictures_and_leads_nowhere():
    read = Reader(page(report()))
    tags = {tag for tag, _ in read.elements}
    assert not tags & {"script", "link", "iframe", "object", "a", "form"}
    pictures = [attrs["src"] for tag, attrs in read.elements if tag == "img"]
    assert [b64decode(src.removeprefix("data:image/webp;base64,")) for src in pictures] == [
        b"a.jpg", b"right.jpg",
    ]  # fmt: skip
    policy = next(a["content"] for t, a in read.elements if t == "meta" and "http-equiv" in a)
    assert "default-src 'none'" in policy and "script" not in policy
    assert not any(name.startswith("on") for _, attrs in read.elements for name in attrs)


def test_every_text_is_escaped():
    text = page(report(models=(EVIL,), name=EVIL, query=EVIL))
    text.encode("utf-8")  # no half of a pair
    assert "\x1b" not in text and "<script" not in text
    read = Reader(text)
    assert not any(tag == "script" for tag, _ in read.elements)
    escaped = "<script>alert(1)</script>\"'&\\x1b[31m\\udcff"
    assert sum(escaped in words for words in read.words) >= 4
    assert [a["alt"] for t, a in read.elements if t == "img"][0] == escaped


def test_right_pictures_are_told_by_more_than_colour():
    words = " ".join(Reader(page(report())).words)
    assert words.count("✓ correct:") == 1 and "right.jpg" in words
    assert "first correct picture: rank 2 of 1,000" in words


def test_two_models_answer_the_same_query():
    text = page(report(models=("one", "two")))
    words = " ".join(Reader(text).words)
    assert "one: first correct picture: rank 2 of" in words
    assert "two: first correct picture: rank 3 of" in words
    assert words.count("12.3%") == 2 and "one vs. two" in words
    assert text.count("<h3>") == 1


def test_a_picture_that_nobody_found_is_shown_at_the_end():
    found = report()
    [example] = found.examples
    missed = ExampleQuery(example.query, example.right, (ModelAnswer(700, (shown("a.jpg"),)),))
    text = page(Report(found.models, found.figures, [missed], 1000, "x"))
    assert "Correct picture:" in text and "rank 700 of 1,000" in text
    assert "Correct picture:" not in page(found)
