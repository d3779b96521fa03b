"""The mistakes that are made in a function."""

from pathlib import Path
from typing import Any

from tests.mutants.mistakes import CLIENT, argued, find

MODULE = '''
class Place:
    @decorated
    def method(self, given: int = 1) -> int:
        """Not code."""
        if given > 1 and self.ready:
            self.count += 1
        return given or None
'''


def test_each_says_where_and_what(tmp_path: Path) -> None:
    path = tmp_path / "place.py"
    path.write_text(MODULE)
    assert sorted(str(each).removeprefix("`place.Place.method` ") for each in find(path)) == [
        "None: `return given or None`",
        "always: `given > 1 and self.ready`",
        "left out: `self.count += 1`",
        "never: `given > 1 and self.ready`",
        "other: `1` in `given > 1`",
        "other: `1` in `self.count += 1`",
        "other: `given > 1`",
        "without `None` of `given or None`",
        "without `given > 1` of `given > 1 and self.ready`",
        "without `given` of `given or None`",
        "without `self.ready` of `given > 1 and self.ready`",
    ]


def test_each_that_is_argued_to_change_nothing_can_be_made() -> None:
    assert len(argued()) > 100
    assert argued() <= {str(each) for path in CLIENT.rglob("*.py") for each in find(path)}


def test_it_is_in_the_code_that_is_made_and_in_no_other(tmp_path: Path) -> None:
    path = tmp_path / "place.py"
    path.write_text("def larger(one, other):\n    return max(one, other)\n")

    def result(mistake: str) -> Any:
        names: dict[str, Any] = {}
        exec(next(each for each in find(path) if each.text.startswith(mistake)).made(), names)
        return names["larger"](1, 2)

    assert (result("other function"), result("None")) == (1, None)
