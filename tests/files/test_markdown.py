"""Words from outside stay words."""

from __future__ import annotations

import pytest

from seqkd.files.markdown import grid, line, plain


@pytest.mark.parametrize(
    "text, shown",
    [
        ("Arts & <b>Crafts</b>", "Arts &amp; &lt;b&gt;Crafts&lt;/b&gt;"),
        ("[x](javascript:alert)", r"\[x\](javascript:alert)"),
        ("a|b`c*d_e", r"a\|b\`c\*d\_e"),
        ("two\nlines\t\x00here", "two lines here"),
        ("# heading", r"\# heading"),
        ("- item", r"\- item"),
        ("1. item", r"1\. item"),
        ("---", r"\---"),
        ("0.0668 ± 0.0005", "0.0668 ± 0.0005"),
        ("-5 %", "-5 %"),
        ("{{ 7 * 7 }}", r"&#123;&#123; 7 \* 7 &#125;&#125;"),
        (7, "7"),
    ],
)
def test_plain(text, shown):
    assert plain(text) == shown


def test_invisible_and_unencodable():
    assert line("a\u202eb\ud800") == "a b?"
    assert plain("שלום 日本 👀") == "שלום 日本 👀"


def test_grid():
    assert grid(["model", "MB"], [["a|b", "2.12"], ["c", "38.20"]]) == "\n".join(
        [r"| model |    MB |", r"| ----- | ----: |", r"| a\|b  |  2.12 |", r"| c     | 38.20 |"]
    )
