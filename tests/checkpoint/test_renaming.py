"""Tables of names that work both ways."""

import pytest

from hdetr_d2.checkpoint.renaming import KeyTable

TABLE = KeyTable(
    [
        ("a.*.norm1.", "b.*.first_norm."),
        ("a.*.norm1.x*.", "b.*.exes.*."),
        ("a.*.", "b.*.rest."),
        ("plain", "simple"),
    ]
)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("a.0.norm1.weight", "b.0.first_norm.weight"),
        ("a.12.norm1.bias", "b.12.first_norm.bias"),
        ("a.3.norm1.x45.w", "b.3.exes.45.w"),
        ("a.3.other", "b.3.rest.other"),
        ("plain", "simple"),
        ("plain.weight", "simple.weight"),
    ],
)
def test_the_longest_prefix_renames_in_both_directions(theirs: str, ours: str) -> None:
    assert TABLE.to_ours(theirs) == ours
    assert TABLE.to_theirs(ours) == theirs


@pytest.mark.parametrize("key", ["", "c.0.norm1.weight", "a.x.norm1.weight", "the.plain", "xa.0.norm1.weight"])
def test_a_key_that_no_prefix_fits_has_no_name(key: str) -> None:
    assert TABLE.to_ours(key) is None


def test_points_of_a_prefix_are_points() -> None:
    assert TABLE.to_ours("a.0.norm1xweight") == "b.0.rest.norm1xweight"
    assert TABLE.to_ours("a.0xnorm1.weight") is None


def test_a_pair_that_loses_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="differ in their number of wildcards"):
        KeyTable([("a.*.", "b.")])
