import pytest

from tests.style.names import allowed, counts, findings, findings_in


def test_no_rule_of_style_is_broken_more_often_than_before() -> None:
    found, most = counts(), allowed()
    worse = {rule: f"{count}, {most.get(rule, 0)} before" for rule, count in found.items() if count > most.get(rule, 0)}
    places = "\n".join(str(each) for each in findings() if each.rule in worse)
    assert not worse, f"{worse}, one of these places is new:\n{places}"


def test_a_count_that_fell_is_written_down() -> None:
    found, most = counts(), allowed()
    assert not {rule for rule in most if found.get(rule, 0) < most[rule]}, "`python -m tests.style.names --write`"


@pytest.mark.parametrize(
    ("rule", "name", "source"),
    [
        ("device_kind", "core/a.py", "round_to = {'cuda': 64}\n"),
        ("device_kind", "core/a.py", "is_slow = device.type == 'cpu'\n"),
        ("device_kind", "worker/a.py", "torch.cuda.synchronize()\n"),
        ("docstring_first_word", "core/a.py", 'def f() -> int:\n    """What it is."""\n'),
        ("long_file", "core/a.py", "\n" * 501),
        ("paper", "core/methods/a/method.py", '"""A method."""\n'),
        ("word_of_our_own", "core/a.py", "whatIsToldNow = 1\n"),
    ],
)
def test_each_rule_finds_what_breaks_it(rule: str, name: str, source: str) -> None:
    assert [each.rule for each in findings_in(name, source)] == [rule]
