"""Graded solutions to show the annotator of GSM8K: problems, references and candidates invented for this project.

Five candidates are all correct, seven hold an error. Among them are merged and split steps, other valid routes, a true
step that nobody needs, an error that nothing builds on, and a right answer behind a wrong step.
"""

from spare_jax.tasks.exemplars import exemplar
from spare_jax.tasks.task import Exemplar


def exemplars() -> tuple[Exemplar, ...]:
    """The pool."""
    return _POOL


_POOL = (
    exemplar(
        "gsm8k-exemplar-rolls",
        "A bakery bakes 14 trays of 12 rolls each. It sells 96 rolls before noon and packs the rest into bags of 8. "
        "How many bags does it pack?",
        (
            "The bakery bakes 14 * 12 = 168 rolls.",
            "After noon 168 - 96 = 72 rolls are left.",
            "They fill 72 / 8 = 9 bags.",
            "The answer is 9.",
        ),
        (
            "There are 14 * 12 - 96 = 72 rolls to pack.",
            "This merges two reference steps: 14 * 12 = 168 rolls baked and 168 - 96 = 72 left.",
            (1, 2), (), (1, 2), (),
        ),
        ("So 72 / 8 = 9 bags are packed.", "The 72 rolls go into bags of 8.", (2,), (1,), (3,), ()),
        ("The answer is 9.", "The question asks for the bags.", (3,), (2,), (4,), ()),
    ),
    exemplar(
        "gsm8k-exemplar-boots",
        "A pair of boots costs $80. Today the shop takes 25% off, and Nadia has a coupon for $6 off the reduced price. "
        "How much does Nadia pay?",
        (
            "The discount is 80 * 25 / 100 = $20.",
            "The reduced price is 80 - 20 = $60.",
            "With the coupon Nadia pays 60 - 6 = $54.",
            "The answer is 54.",
        ),
        (
            "Nadia has to pay 75% of the price: 80 * 75 / 100 = $60.",
            "Another valid route: 25% off leaves 75%, which gives the reduced price of the second reference step.",
            (1, 2), (), (1, 2), (),
        ),
        ("The coupon brings this down to 60 - 6 = $54.", "The coupon takes $6 off.", (2,), (1,), (3,), ()),
        ("The answer is 54.", "This is the price that the question asks for.", (3,), (2,), (4,), ()),
    ),
    exemplar(
        "gsm8k-exemplar-bike",
        "Tomas rides his bike 18 kilometers to work and the same way back on 4 days of the week. On Saturdays he "
        "rides 25 kilometers in the hills. How many kilometers does he ride in a week?",
        (
            "A working day makes 18 * 2 = 36 kilometers.",
            "The working days make 36 * 4 = 144 kilometers.",
            "With Saturday he rides 144 + 25 = 169 kilometers.",
            "The answer is 169.",
        ),
        ("On a working day he rides 18 + 18 = 36 kilometers.", "There and back, as in r1.", (1,), (), (1,), ()),
        (
            "In 4 days that is 36 * 4 = 134 kilometers.",
            "The calculation is the right one, but 36 * 4 = 144.",
            (1,), (1,), (2,), ("NUMERIC",),
        ),
        (
            "With Saturday it is 134 + 25 = 159 kilometers.",
            "It adds Saturday to the wrong 134: the reference has 144 + 25 = 169.",
            (2,), (2,), (3,), ("PROPAGATED",),
        ),
        ("The answer is 159.", "It repeats the wrong total.", (3,), (3,), (4,), ("PROPAGATED",)),
    ),
    exemplar(
        "gsm8k-exemplar-stickers",
        "Lena has 3 times as many stickers as Omar. Omar has 15 fewer stickers than Pia, and Pia has 40 stickers. "
        "How many stickers do the three have together?",
        (
            "Omar has 40 - 15 = 25 stickers.",
            "Lena has 3 * 25 = 75 stickers.",
            "Together they have 75 + 25 + 40 = 140 stickers.",
            "The answer is 140.",
        ),
        (
            "Pia has 40 stickers, so Omar has 40 + 15 = 55.",
            "Omar has fewer stickers than Pia, not more: 40 - 15 = 25.",
            (2,), (), (1,), ("COMPREHENSION",),
        ),
        ("Lena has 3 * 55 = 165 stickers.", "It uses the wrong 55 for Omar.", (1,), (1,), (2,), ("PROPAGATED",)),
        (
            "Together they have 165 + 55 + 40 = 260 stickers.",
            "The right sum of wrong counts for Lena and Omar.",
            (2, 3), (1, 2), (3,), ("PROPAGATED",),
        ),
        ("The answer is 260.", "It repeats the wrong total; the reference has 140.", (3,), (3,), (4,), ("PROPAGATED",)),
    ),
    exemplar(
        "gsm8k-exemplar-pencils",
        "A school orders 6 boxes of pencils with 24 pencils in each box and 3 boxes of erasers with 30 erasers in each "
        "box. Each of its 36 pupils gets the same number of pencils. How many pencils does a pupil get?",
        ("There are 6 * 24 = 144 pencils, and 144 / 36 = 4 of them go to each pupil.", "The answer is 4."),
        ("The boxes hold 6 * 24 = 144 pencils.", "It is the first half of the reference step.", (1,), (), (1,), ()),
        (
            "There are also 3 * 30 = 90 erasers.",
            "Nobody asks for the erasers, but what it says is true.",
            (1,), (), (), (),
        ),
        ("Each pupil gets 144 / 36 = 4 pencils.", "It is the second half of r1.", (2,), (1,), (1,), ()),
        ("The answer is 4.", "The question asks for the pencils of a pupil.", (3,), (3,), (2,), ()),
    ),
    exemplar(
        "gsm8k-exemplar-screws",
        "A machine makes 45 screws a minute. It is switched on for 3 hours, but stands still for 20 minutes of them. "
        "How many screws does it make?",
        (
            "3 hours are 3 * 60 = 180 minutes.",
            "The machine works for 180 - 20 = 160 minutes.",
            "It makes 160 * 45 = 7200 screws.",
            "The answer is 7200.",
        ),
        (
            "3 * 60 = 180, so the machine works for 180 + 20 = 200 minutes.",
            "The 180 minutes are right, but the 20 minutes of standing still have to be taken away.",
            (2,), (), (1, 2), ("OPERATION",),
        ),
        ("It makes 200 * 45 = 9000 screws.", "It uses the wrong 200 minutes.", (1,), (1,), (3,), ("PROPAGATED",)),
        ("The answer is 9000.", "It repeats a wrong result.", (3,), (2,), (4,), ("PROPAGATED",)),
    ),
    exemplar(
        "gsm8k-exemplar-tent",
        "Ivo has $48 and saves $12 a week. A tent costs $150, and his aunt promises to pay $30 of it. "
        "After how many weeks can Ivo buy the tent?",
        (
            "Ivo has to pay 150 - 30 = $120.",
            "He still needs 120 - 48 = $72.",
            "That takes 72 / 12 = 6 weeks.",
            "The answer is 6.",
        ),
        (
            "With his aunt's money Ivo has 48 + 30 = $78.",
            "The reference does not add these, but both amounts count towards the tent.",
            (1, 2), (), (), (),
        ),
        (
            "He needs 150 - 78 = $72 more.",
            "The first two steps of the reference come to the same $72.",
            (2,), (1,), (1, 2), (),
        ),
        (
            "The answer is 72.",
            "The question asks for weeks; 72 is the money, and 72 / 12 = 6 is still to be done.",
            (1, 3), (2,), (3, 4), ("ANSWER",),
        ),
    ),
    exemplar(
        "gsm8k-exemplar-apples",
        "A farmer has 5 rows of 16 apple trees. Each tree gives 20 kilograms of apples, and a tenth of the harvest is "
        "lost. How many kilograms are left?",
        (
            "There are 5 * 16 = 80 trees.",
            "They give 80 * 20 = 1600 kilograms.",
            "Of these 1600 / 10 = 160 kilograms are lost.",
            "So 1600 - 160 = 1440 kilograms are left.",
            "The answer is 1440.",
        ),
        ("5 * 16 = 80 trees stand there.", "As in r1.", (1,), (), (1,), ()),
        ("They give 80 * 20 = 1600 kilograms of apples.", "20 kilograms from each tree.", (2,), (1,), (2,), ()),
        (
            "A crate holds 25 kilograms, so 1600 / 25 = 64 crates are filled.",
            "Nothing is said of crates or of what they hold.",
            (), (2,), (), ("UNSUPPORTED",),
        ),
        (
            "Without the lost tenth 1600 - 1600 / 10 = 1440 kilograms are left.",
            "It merges r3 and r4 and uses the harvest, not the crates.",
            (2,), (2,), (3, 4), (),
        ),
        ("The answer is 1440.", "This is what is left, as in r5.", (3,), (4,), (5,), ()),
    ),
    exemplar(
        "gsm8k-exemplar-book",
        "Mira has a book of 240 pages. On Monday she reads a third of it, and on Tuesday 3/8 of the rest. "
        "How many pages are unread after that?",
        (
            "On Monday she reads 240 / 3 = 80 pages.",
            "That leaves 240 - 80 = 160 pages.",
            "On Tuesday she reads 160 * 3 / 8 = 60 pages.",
            "So 160 - 60 = 100 pages are unread.",
            "The answer is 100.",
        ),
        (
            "Two thirds of the book are left after Monday: 240 * 2 / 3 = 160 pages.",
            "It takes the unread part at once and comes to the 160 pages of r2.",
            (1, 2), (), (1, 2), (),
        ),
        (
            "Five eighths of these are left after Tuesday: 160 * 5 / 8 = 100 pages.",
            "Reading 3/8 leaves 5/8, and the result is that of r4.",
            (2,), (1,), (3, 4), (),
        ),
        ("The answer is 100.", "These are the unread pages.", (3,), (2,), (5,), ()),
    ),
    exemplar(
        "gsm8k-exemplar-tank",
        "A full tank holds 600 liters of water. In the first hour a quarter of the water flows out, and in the second "
        "hour 40% of what is then left. How many liters are in the tank after two hours?",
        (
            "In the first hour 600 / 4 = 150 liters flow out.",
            "Then 600 - 150 = 450 liters are left.",
            "In the second hour 450 * 40 / 100 = 180 liters flow out.",
            "After two hours 450 - 180 = 270 liters are in the tank.",
            "The answer is 270.",
        ),
        ("The first hour takes 600 / 4 = 150 liters.", "A quarter of the full tank.", (1, 2), (), (1,), ()),
        (
            "The second hour takes 600 * 40 / 100 = 240 liters.",
            "The 40% are of the 450 liters that are left, not of the full tank.",
            (1, 2), (), (3,), ("COMPREHENSION",),
        ),
        (
            "In two hours 150 + 240 = 390 liters flow out.",
            "The 150 liters are right, but the 240 liters are not.",
            (2,), (1, 2), (1, 3), ("PROPAGATED",),
        ),
        ("So 600 - 390 = 210 liters are left.", "It rests on the wrong 390.", (1,), (3,), (4,), ("PROPAGATED",)),
        ("The answer is 210.", "It repeats a wrong result; r5 has 270.", (3,), (4,), (5,), ("PROPAGATED",)),
    ),
    exemplar(
        "gsm8k-exemplar-boat",
        "Four friends rent a boat for 5 hours at $24 an hour. They leave a deposit of $20, which they get back, and "
        "buy a map for $8. They share all costs equally. How much does each friend pay in the end?",
        (
            "The boat costs 5 * 24 = $120.",
            "With the map that makes 120 + 8 = $128.",
            "Each friend pays 128 / 4 = $32.",
            "The answer is 32.",
        ),
        ("5 hours on the boat cost 5 * 24 = $120.", "The hours times the price of an hour.", (1,), (), (1,), ()),
        ("The deposit of $20 costs them nothing.", "They get it back, so it is rightly left out.", (2,), (), (), ()),
        (
            "In the end each of the four friends pays 120 / 4 = $30.",
            "The map for $8 is forgotten: the reference shares 120 + 8 = $128.",
            (1, 3), (1,), (2, 3), ("MISSING",),
        ),
        ("The answer is 30.", "It repeats a result without the map.", (4,), (3,), (4,), ("PROPAGATED",)),
    ),
    exemplar(
        "gsm8k-exemplar-father",
        "Greta is 9 years old. Her brother is 5 years older than she is, and their father is twice as old as the two "
        "children together. How old will the father be in 6 years?",
        (
            "The brother is 9 + 5 = 14 years old.",
            "Together the children are 9 + 14 = 23 years old.",
            "The father is 2 * 23 = 46 years old.",
            "In 6 years he will be 46 + 6 = 52 years old.",
            "The answer is 52.",
        ),
        ("Her brother is 14 years old.", "The calculation is not shown, but 9 + 5 = 14.", (1, 2), (), (1,), ()),
        (
            "The father is 2 * (9 + 14) = 46 years old.",
            "It adds the children's ages and doubles them in one step.",
            (1, 2), (1,), (2, 3), (),
        ),
        ("6 years later he will be 52 years old.", "46 + 6 = 52.", (3,), (2,), (4,), ()),
        ("The answer is 52.", "It is the father's age in 6 years.", (3,), (3,), (5,), ()),
    ),
)  # fmt: skip
