"""What the pytest plugin costs a session that has nothing to do with the library."""

import sys
from importlib.metadata import entry_points

import pytest

pytest_plugins = ["pytester"]

UNRELATED = """
import sys

def test_nothing_is_imported():
    assert "pytest_slipstream" in sys.modules
    assert not [name for name in sys.modules if name.partition(".")[0] in ("slipstream_trio", "trio", "attrs")]
"""


@pytest.mark.once
def test_a_session_that_has_nothing_to_do_with_it_imports_nothing(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # as other plugins may import trio
    pytester.makeini("[pytest]\nfilterwarnings = error\n")
    pytester.makepyfile(UNRELATED)
    result = pytester.runpytest_subprocess("-p", "pytest_slipstream", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)


def test_it_is_found_by_pytest() -> None:
    [found] = [point for point in entry_points(group="pytest11") if point.value == "pytest_slipstream"]
    assert found.load() is sys.modules["pytest_slipstream"]
