"""The page of numbers has those of the code."""

from pathlib import Path

import pytest

from memorywam_robot.doctor_numbers import RULES, numbers_of, numbers_table

PAGE = Path(__file__).resolve().parents[2] / "robot/NUMBERS.md"


def test_the_page_has_the_numbers_of_the_code():
    text = PAGE.read_text()
    found = text.split("<!-- numbers -->\n")[1].split("<!-- /numbers -->")[0]
    assert found == numbers_table(), "run python -m memorywam_robot.doctor_numbers, and paste it"


@pytest.mark.parametrize("rules", RULES, ids=lambda rules: rules.__name__)
def test_every_number_says_where_it_is_from(rules):
    for one in numbers_of(rules):
        assert one.source, one
        assert one.default, one
        assert "\n" not in one.meaning + one.source


def test_a_source_and_a_choice():
    numbers = {one.name: one for rules in RULES for one in numbers_of(rules)}
    assert numbers["recover_after_ms"].source == "ovcs' stall limit of 2 s"
    assert numbers["recover_after_ms"].default == "2000"
    assert numbers["queue_frames"].source == "choice"
    assert numbers["queue_frames"].meaning == "Frames that may wait to be taken, a second at 30 Hz"
