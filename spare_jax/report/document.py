"""The frame of every page: one file that loads nothing and runs nothing, which its content security policy enforces."""

from spare_jax.report.style import STYLE


def document(title: str, body: str) -> str:
    """A whole HTML page. `title` and `body` are HTML; the caller has escaped other text in them (markup.py)."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f'<meta name="color-scheme" content="light dark"><title>{title}</title><style>{STYLE}</style></head><body>'
        f"{body}</body></html>\n"
    )
