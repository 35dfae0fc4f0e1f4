import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperrl.families.expressions import Expression

numbers = st.floats(-1e3, 1e3)


@given(numbers, numbers)
def test_value_equals_pythons(a: float, b: float) -> None:
    text = "-a + 2 * (b - abs(a)) / 4.5 + b ** 2"
    expression = Expression(text, ["a", "b"])
    assert expression({"a": a, "b": b}) == eval(text, {}, {"a": a, "b": b})
    assert pickle.loads(pickle.dumps(expression))({"a": a, "b": b}) == expression({"a": a, "b": b})


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')",
        "a.real",
        "(lambda: 1)()",
        "[a]",
        "'text'",
        "a if a else a",
        "max(a, a)",
        "abs",
        "a +",
        "abs(abs)",
        "abs(a)(a)",
        "a := 1",
        "True",
        "1j",
        "",
    ],
)
def test_anything_but_arithmetic_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|unknown name|takes one argument"):
        Expression(text, ["a"])
