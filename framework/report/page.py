"""The pieces that every page of a report is made of, as HTML, and how a page is written."""

import base64
import html
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

import yaml

from framework.errors import UserError
from framework.report.figures import Figure
from framework.report.reading import Paragraph

UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def write_page(target: Path, page: str, figures: Sequence[Figure]) -> Path:
    """Write a page whole or not at all, with its figures as PNG beside it; returns `target`.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for figure in figures:
            (target.parent / f"{figure.name}.png").write_bytes(figure.png)
        draft = target.with_name(target.name + ".part")
        draft.write_text(page, encoding="utf-8")
        os.replace(draft, target)
    except OSError as error:
        raise UserError(f"cannot write the report to {target.parent}: {error.strerror or error}") from error
    return target


def fill_page(body: str, title: str, **parts: str) -> str:
    """A page of the shared head and the template of this name in this folder, its parts filled in as HTML."""
    shell, own = (
        (Path(__file__).parent / name).read_text(encoding="utf-8") for name in ("template.html", body)
    )
    head = Template(shell.partition("<body>")[0])
    return head.substitute(title=escaped(title)) + Template(own).substitute(title=escaped(title), **parts)


def escaped(value: str) -> str:
    """Safe as HTML text and in a double-quoted attribute; unprintable characters become visible."""
    return html.escape(UNPRINTABLE.sub("\ufffd", value), quote=True)


def html_paragraph(content: Paragraph) -> str:
    """A few sentences, after what they are about."""
    if not content.about:
        return f'<p class="headline">{escaped(content.text)}</p>'
    return f"<p><strong>{escaped(content.about)}</strong>: {escaped(content.text)}</p>"


def html_table(head: str, rows: Iterable[str], kind: str) -> str:
    """A table of a row of header cells and of rows, that scrolls where it is too wide."""
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def folded(title: str, content: str) -> str:
    """HTML that a reader opens if they want it."""
    return f"<details><summary>{escaped(title)}</summary>{content}</details>"


def html_figure(drawn: Figure) -> str:
    """A plot within the page, with its caption and the name of its PNG."""
    data = base64.b64encode(drawn.svg).decode()
    return (
        f'<figure><h3>{escaped(drawn.title)}</h3><div class="wide"><img alt="{escaped(drawn.alt)}" '
        f'src="data:image/svg+xml;base64,{data}"></div><figcaption>{escaped(drawn.caption)} '
        f'<a href="{drawn.name}.png">{drawn.name}.png</a></figcaption></figure>'
    )


def provenance_table(runs: Iterable[tuple[str, str, Mapping[str, Any]]]) -> str:
    """Code version and parents of runs, given the name, configuration fingerprint and manifest of each."""
    rows = []
    for name, fingerprint, manifest in runs:
        parents = manifest.get("parents") or {}
        listed = "<br>".join(_parent(role, parent) for role, parent in parents.items())
        rows.append(
            f'<tr><th scope="row">{escaped(name)}</th>'
            f'<td class="hash">{escaped(fingerprint)}</td>'
            f"<td>{escaped(str(manifest.get('code_version', '–')))}</td><td>{listed or '–'}</td></tr>"
        )
    columns = ("Run", "Config fingerprint", "Code", "Parents (SHA-256)")
    return html_table("".join(f'<th scope="col">{column}</th>' for column in columns), rows, "text")


def config_as_yaml(name: str, config: Mapping[str, Any]) -> str:
    """A configuration, folded."""
    shown = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    return folded(f"Resolved config of {name}", f"<pre>{escaped(shown)}</pre>")


def plural(count: int, noun: str) -> str:
    """A count and its noun."""
    return f"{count} {noun}" + ("" if count == 1 else "s")


def _parent(role: str, parent: Any) -> str:
    entry = parent if isinstance(parent, Mapping) else {"sha256": parent}
    digest = escaped(str(entry.get("sha256") or "no hash"))
    return (
        f'{escaped(role)} <span class="hash" title="{digest}">{digest[:16]}</span> '
        f"{escaped(str(entry.get('path') or ''))}"
    )
