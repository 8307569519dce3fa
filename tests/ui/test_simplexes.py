from ftw.hat.monitoring import SimplexScore
from ftw.ui.visualization.simplexes import draw_simplexes


def at(positive: float, z: float) -> SimplexScore:
    return SimplexScore("Mood", ("Sad", "Even", "Glad"), 0.9 - positive, 0.1, positive, z, 0.0, abs(z) > 2)


def test_a_row_names_the_pole_and_the_place_furthest_from_the_mean() -> None:
    head, row = (
        text.plain for text in draw_simplexes([(at(0.85, 2.5),), (at(0.9, 1.9),), (at(0.05, -3.25),)], width=80)
    )
    assert head.startswith("between poles")
    assert row.startswith("sad, glad")
    assert row.endswith("sad 85 %   -3.2")
    assert row[18:21] == "█ ▁"
    assert all(len(line) <= 80 for line in (head, row))


def test_what_stands_at_its_usual_place_is_not_drawn() -> None:
    assert draw_simplexes([(), (at(0.9, 1.9),)], width=80) == []
