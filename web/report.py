"""Show how one or two models performed: one HTML file, without scripts or links."""

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from fovea.search.clip.evaluation.examples import ExampleQuery, ShownImage
from fovea.search.library.paths import printable

__all__ = ["Report", "page"]

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --right: #0a7d33; }
@media (prefers-color-scheme: dark) { :root { --right: #4cd07d; } }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
h3 { font-size: 1rem; margin: 0 0 .4rem; overflow-wrap: anywhere }
table { border-collapse: collapse } caption { text-align: left; padding-bottom: .4rem }
th, td { padding: .2rem .9rem .2rem 0; text-align: left; border-bottom: 1px solid var(--line) }
thead th, td { font-variant-numeric: tabular-nums; text-align: right }
section { border-top: 1px solid var(--line); padding: 1rem 0 }
ol { display: flex; flex-wrap: wrap; gap: .5rem; list-style: none; padding: 0;
  margin: .3rem 0 .8rem }
li { width: 8.6rem } figure { margin: 0 }
img { display: block; width: 8.2rem; height: 8.2rem; object-fit: contain; background: #8882;
  border: 3px solid transparent; border-radius: 4px }
.right img { border-color: var(--right) }
figcaption { font-size: .75rem; overflow-wrap: anywhere; opacity: .85 }
.right figcaption { color: var(--right); font-weight: 600; opacity: 1 }
p { margin: .2rem 0 }
"""


@dataclass(frozen=True, slots=True)
class Report:
    """The names of the models, their figures by name, and example queries.

    Each query searched all ``images`` pictures of the data set ``data``.
    """

    models: Sequence[str]
    figures: Sequence[Mapping[str, Any]]
    examples: Sequence[ExampleQuery]
    images: int
    data: str


def page(report: Report) -> str:
    """Return the page as HTML: its pictures are embedded, and every text is escaped."""
    title = " vs. ".join(report.models)
    return "\n".join(
        (
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{_text(title)}</title>",
            f"<style>{_STYLE}</style></head><body>",
            f"<h1>{_text(title)}</h1>",
            f"<p>Measured on {_text(report.data)}.</p>",
            *_table(report),
            f"<h2>First hits of {len(report.examples)} random queries</h2>",
            f"<p>Each query searched all {report.images:,} pictures. Correct hits have a frame and "
            "a check mark.</p>",
            *(part for example in report.examples for part in _example(example, report)),
            "</body></html>",
            "",
        )
    )


def _table(report: Report) -> Iterator[str]:
    """Yield the figures, one column per model."""
    yield "<h2>Figures</h2><table><thead><tr><th></th>"
    yield from (f'<th scope="col">{_text(name)}</th>' for name in report.models)
    yield "</tr></thead><tbody>"
    for name in dict.fromkeys(name for figures in report.figures for name in figures):
        cells = "".join(f"<td>{_figure(figures.get(name))}</td>" for figures in report.figures)
        yield f'<tr><th scope="row">{_text(name)}</th>{cells}</tr>'
    yield "</tbody></table>"


def _figure(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.1%}"
    return f"{value:,}" if isinstance(value, int) else _text(value)


def _example(example: ExampleQuery, report: Report) -> Iterator[str]:
    yield f"<section><h3>{_text(example.query)}</h3>"
    for name, answer in zip(report.models, example.answers, strict=True):
        model = f"{_text(name)}: " if len(report.models) > 1 else ""
        yield f"<p>{model}first correct picture: rank {answer.rank:,} of {report.images:,}</p>"
        yield f"<ol>{''.join(map(_hit, answer.hits))}</ol>"
    if not any(hit.is_right for answer in example.answers for hit in answer.hits):
        yield f"<p>Correct picture:</p><ol>{_hit(example.right)}</ol>"
    yield "</section>"


def _hit(hit: ShownImage) -> str:
    kind, mark = (' class="right"', "✓ correct: ") if hit.is_right else ("", "")
    data = b64encode(hit.picture).decode("ascii")
    name = _text(hit.file)
    return (
        f'<li{kind}><figure><img src="data:image/webp;base64,{data}" alt="{name}">'
        f"<figcaption>{mark}{name}</figcaption></figure></li>"
    )


def _text(value: object) -> str:
    """Return a text for HTML."""
    return escape(printable(str(value)), quote=True)
