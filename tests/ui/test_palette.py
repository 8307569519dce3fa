"""Hues: from the root, the same in every run, legible."""

import pytest

from ftw.ui.visualization.palette import GROUND, HUES, INK, QUIET, TINT, Palette, contrast, mix, theme

ROOTS = {f"c{i}{j}": f"r{i}" for i in range(8) for j in range(10 - i)}


def test_every_hue_and_ink_keeps_four_and_a_half_to_one_on_the_ground() -> None:
    for colour in (*HUES, INK, QUIET):
        assert contrast(colour, GROUND) >= 4.5, colour


@pytest.mark.parametrize("hue", [*HUES, QUIET])
def test_a_word_stays_legible_on_the_strongest_tint(hue: str) -> None:
    assert contrast(INK, mix(hue, GROUND, TINT)) >= 4.5


def test_contrast_is_that_of_wcag() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_a_concept_has_the_hue_of_its_root_whoever_comes_first() -> None:
    first, second = Palette.of(ROOTS), Palette.of(dict(reversed(ROOTS.items())))
    assert first.hue("c00") == first.hue("c05") == HUES[0]
    assert second.hue("c13") == first.hue("c10") == HUES[1]


def test_a_page_has_at_most_six_hues_and_the_rest_is_grey() -> None:
    page = Palette.of(ROOTS)
    hues = [page.hue(f"c{i}0") for i in range(8)]
    assert len(set(hues[:6])) == 6
    assert hues[6:] == [QUIET, QUIET]


def test_a_hue_that_is_free_on_this_page_goes_to_a_later_root() -> None:
    page = Palette.of(ROOTS)
    assert page.hue("c60") == HUES[0]
    assert page.hue("c00") == QUIET


def test_an_unknown_concept_is_grey() -> None:
    assert Palette.of(ROOTS).hue("nobody") == QUIET


def test_strength_is_a_tint_and_from_half_on_a_line_as_well() -> None:
    page = Palette.of(ROOTS)
    weak, strong = page.word("c00", 0.3), page.word("c00", 0.9)
    assert not weak.underline
    assert strong.underline
    assert weak.bgcolor != strong.bgcolor


def test_exported_pictures_stand_on_the_ground_of_the_look() -> None:
    assert theme().background_color.hex == GROUND
    assert theme().foreground_color.hex == INK
