"""The page of the workshop has the tolerances that are used."""

from tests.fakes.page_commands import ROOT

from memorywam_export.parity.tolerances import NOISE_FACTOR, SPREAD_SHARE, TOLERANCES


def test_the_readme_has_the_tolerances_of_the_code():
    page = (ROOT / "export" / "README.md").read_text()
    table = page.split("<!-- tolerances -->\n")[1].split("<!-- /tolerances -->")[0]
    rows = [f"| {name} | {one.max_abs:g} | {one.reason} |" for name, one in TOLERANCES.items()]
    assert table.splitlines()[2:] == rows
    assert f"{NOISE_FACTOR:g} times the noise" in page
    assert SPREAD_SHARE == 0.5 and "half of what" in page  # noqa: PT018
