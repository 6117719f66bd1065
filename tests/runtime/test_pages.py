"""Tables of a page: figures to the right, words to the left, everything escaped."""

from memorywam_runtime.pages import table


def test_columns_of_figures_stand_to_the_right_and_words_to_the_left():
    html = table(("name", "error", "at"), [("a", "1.2e-7", "frame 3"), ("b", "", "<b>")])
    assert '<th>name</th><th class="number">error</th><th>at</th>' in html
    assert '<td>a</td><td class="number">1.2e-7</td><td>frame 3</td>' in html
    assert '<td class="number"></td><td>&lt;b&gt;</td>' in html


def test_the_first_column_is_a_name_though_it_be_a_figure():
    html = table(("frames", "ms"), [(1, "-0.5 ms"), (10, "inf")])
    assert "<td>10</td>" in html
    assert '<td class="number">-0.5 ms</td>' in html
    assert '<td class="number">inf</td>' in html
