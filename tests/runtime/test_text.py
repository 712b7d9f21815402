"""How messages say numbers and lists."""

from malmen.runtime.text import counted, either, first_few


def test_one_is_singular() -> None:
    assert [counted(number, "link") for number in (0, 1, 2, 1234)] == ["0 links", "1 link", "2 links", "1,234 links"]
    assert counted(1, "line repeats", "lines repeat") == "1 line repeats"
    assert counted(2, "line repeats", "lines repeat") == "2 lines repeat"


def test_of_many_names_the_first_are_said_and_how_many_are_left() -> None:
    assert first_few(["a"]) == "a"
    assert first_few(["a", "b", "c"]) == "a, b, c"
    assert first_few([str(number) for number in range(47)]) == "0, 1, 2 and 44 more"


def test_choices_are_offered_with_or() -> None:
    assert [either(names) for names in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a or b", "a, b or c"]
