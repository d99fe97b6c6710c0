"""What `make docs` does to the HTML of a page."""

from __future__ import annotations

from whole import on_page_content


def test_names_and_numbers_are_not_broken_and_long_code_is() -> None:
    long = "TextEmbedding(&quot;my-model&quot;, threads=4)"
    page = (
        f"<p><code>--no-normalize</code>, <code>{long}</code></p><td>4e-07</td>"
        "<td>an e5-small</td><td><code>a-b</code></td>"
    )
    assert on_page_content(page) == (
        f'<p><code class="whole">--no-normalize</code>, <code>{long}</code></p><td class="whole">4e-07</td>'
        '<td>an e5-small</td><td><code class="whole">a-b</code></td>'
    )


def test_blocks_of_code_stay_as_they_are() -> None:
    block = "<pre><span></span><code>make demo\n</code></pre>"
    text, marked = "<p><code>make</code></p>", '<p><code class="whole">make</code></p>'
    assert on_page_content(block + text + block) == block + marked + block
    assert on_page_content("<p>a &lt;-&gt; b</p>") == "<p>a &lt;-&gt; b</p>"
