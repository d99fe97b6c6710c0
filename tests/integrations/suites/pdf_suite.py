"""PDF files in an index, by pypdf: the text of their pages, and the page of a hit."""

from __future__ import annotations

from pathlib import Path

from conftest import Case
from pdf_files import pdf
from stores_case import case

from fastembed_rt.search import Index, build


def test_a_pdf_is_found_by_page(case: Case, tmp_path: Path) -> None:
    pages = ["the house is red . " * 8, "a dog runs quickly under the old tree"]
    (tmp_path / "pages.pdf").write_bytes(pdf(pages))
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.4 of no kind")
    done = build(tmp_path, case.model, opened_from=case.dense)
    assert done.added == ["pages.pdf"]
    assert done.skipped["broken.pdf"].startswith("not a PDF that pypdf reads (")
    with Index(tmp_path, case.model) as index:
        hits = index.search(case.query, 100)
        assert {hit.line for hit in hits} == {"page 1", "page 2"}
        second = [hit for hit in hits if hit.line == "page 2"]
        assert [hit.text for hit in second] == [pages[1]]
