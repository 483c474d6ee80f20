"""Graded answers to show the annotator of MuSiQue: people, places, paragraphs and candidates invented for this project.

Three candidates are all correct, five hold an error. Among them are merged steps, another order, a true step that
nobody needs, and an error that nothing builds on. There are fewer paragraphs than the data set's twenty.
"""

from spare_jax.tasks.exemplars import exemplar
from spare_jax.tasks.task import Exemplar


def exemplars() -> tuple[Exemplar, ...]:
    """The pool."""
    return _POOL


_POOL = (
    exemplar(
        "musique-exemplar-observatory",
        "In which country was the architect of the Halden Observatory born?",
        (
            "Who designed the Halden Observatory?: Petra Lindvall",
            "In which country was Petra Lindvall born?: Finland",
            "The answer is Finland.",
        ),
        (
            "The Halden Observatory was designed by Petra Lindvall, who was born in Salmela, a Finnish town.",
            "It takes both hops at once, as the first two paragraphs have them.",
            (1, 2), (), (1, 2), (),
        ),
        ("So the architect was born in Finland.", "A Finnish town is in Finland.", (2,), (1,), (2,), ()),
        ("The answer is Finland.", "The country that the question asks for.", (), (2,), (3,), ()),
        context=(
            "Halden Observatory: The observatory stands on a hill above Merrow. It was designed by Petra Lindvall.",
            "Petra Lindvall: Petra Lindvall was born in the Finnish town of Salmela and later worked in Merrow.",
            "Merrow: Merrow is a market town with a glass works.",
            "Lindvall Prize: The prize is given every other year to a young geologist.",
        ),
    ),
    exemplar(
        "musique-exemplar-opera",
        "Which river flows through the town where the composer of The Salt Road grew up?",
        (
            "Who composed The Salt Road?: Milo Hartenau",
            "Where did Milo Hartenau grow up?: Velbruck",
            "Which river flows through Velbruck?: the Sorn",
            "The answer is the Sorn.",
        ),
        (
            "The composer of The Salt Road is Greta Osten.",
            "She wrote its words; the first paragraph names Milo Hartenau as the composer.",
            (1,), (), (1,), ("ENTITY",),
        ),
        (
            "So the composer grew up in Tessen.",
            "That is Greta Osten's town; Hartenau grew up in Velbruck.",
            (2, 3), (1,), (2,), ("PROPAGATED",),
        ),
        (
            "The river of the composer's town is the Arl.",
            "It is the river of the wrong town.",
            (5,), (2,), (3,), ("PROPAGATED",),
        ),
        ("The answer is the Arl.", "It repeats the wrong river.", (), (3,), (4,), ("PROPAGATED",)),
        context=(
            "The Salt Road: The Salt Road is an opera by Milo Hartenau to words by Greta Osten.",
            "Milo Hartenau: Hartenau grew up in Velbruck, where his father kept an inn.",
            "Greta Osten: The poet Greta Osten grew up in Tessen.",
            "Velbruck: The Sorn divides Velbruck into an upper and a lower town.",
            "Tessen: Tessen lies where the Arl leaves the hills.",
        ),
    ),
    exemplar(
        "musique-exemplar-newspaper",
        "Who owns the newspaper that Tomas Werle founded?",
        (
            "Which newspaper did Tomas Werle found?: Harbour Gazette",
            "Who owns the Harbour Gazette?: Kestrel Group",
            "The answer is Kestrel Group.",
        ),
        ("Tomas Werle founded the Harbour Gazette.", "The first hop, as c1 has it.", (1,), (), (1,), ()),
        (
            "The Harbour Gazette belongs to Lena Moritz.",
            "She is its editor; the paragraph names the Kestrel Group as the owner.",
            (2,), (1,), (2,), ("RELATION",),
        ),
        ("The answer is Lena Moritz.", "It repeats the editor.", (), (2,), (3,), ("PROPAGATED",)),
        context=(
            "Tomas Werle: Werle founded the Harbour Gazette and wrote for it until he died.",
            "Harbour Gazette: The Gazette appears daily. Its editor is Lena Moritz, its owner the Kestrel Group.",
            "Kestrel Group: The Kestrel Group began as a maker of paper.",
        ),
    ),
    exemplar(
        "musique-exemplar-university",
        "When was the university founded at which Ada Brenn teaches?",
        (
            "At which university does Ada Brenn teach?: Norwick University",
            "When was Norwick University founded?: 1834",
            "The answer is 1834.",
        ),
        ("Ada Brenn teaches botany at Norwick University.", "It agrees with c2 and r1.", (2,), (), (1,), ()),
        (
            "She also took her degree there.",
            "No paragraph says where she took it.",
            (), (1,), (), ("UNSUPPORTED",),
        ),
        (
            "Norwick University was founded in 1834, as a school of mining.",
            "It agrees with c1, and does not use the step before.",
            (1,), (1,), (2,), (),
        ),
        ("The answer is 1834.", "The year of the founding.", (), (3,), (3,), ()),
        context=(
            "Norwick University: The university goes back to a school of mining that was founded in 1834.",
            "Ada Brenn: Brenn is a botanist at Norwick University and known for her work on mosses.",
            "Norwick: The town of Norwick got its railway in 1851.",
        ),
    ),
    exemplar(
        "musique-exemplar-falls",
        "How many people live in the capital of the province to which the Ember Falls belong?",
        (
            "In which province are the Ember Falls?: Eastmark",
            "What is the capital of Eastmark?: Tolmar",
            "How many people live in Tolmar?: 48,000",
            "The answer is 48,000.",
        ),
        (
            "Tolmar, the capital of Eastmark, has 48,000 inhabitants.",
            "The last two hops come first, which is no error.",
            (3, 4), (), (2, 3), (),
        ),
        ("The Ember Falls are in Eastmark.", "The first hop.", (1,), (), (1,), ()),
        (
            "The falls are 40 metres high.",
            "Nobody asks for it, but the paragraph says so.",
            (1,), (), (), (),
        ),
        ("The answer is 48,000.", "The two halves of the chain meet in Eastmark.", (), (1, 2), (4,), ()),
        context=(
            "Ember Falls: The Ember Falls in Eastmark drop 40 metres into a gorge.",
            "Westmark: Westmark and its capital Orla lie behind the mountains.",
            "Eastmark: Eastmark is governed from Tolmar, its capital.",
            "Tolmar: Tolmar has a harbour and 48,000 inhabitants.",
        ),
    ),
    exemplar(
        "musique-exemplar-cup",
        "For which club did the man play who won the Halloran Cup of 1987 with the last goal?",
        (
            "Who won the Halloran Cup of 1987 with the last goal?: Ruben Aske",
            "For which club did Ruben Aske play?: Dorvik United",
            "The answer is Dorvik United.",
        ),
        ("Ruben Aske shot the last goal of that final.", "It agrees with c1 and r1.", (1,), (), (1,), ()),
        ("Ruben Aske played for Dorvik United.", "It agrees with c2 and r2.", (2,), (1,), (2,), ()),
        (
            "The answer is Ruben Aske.",
            "The question asks for his club, which the step before has found.",
            (), (1, 2), (3,), ("ANSWER",),
        ),
        context=(
            "Halloran Cup 1987: The final was decided by a late goal of Ruben Aske.",
            "Ruben Aske: Aske was a forward of Dorvik United for eleven years.",
            "Dorvik: Dorvik lies on an island and lives on fishing.",
        ),
    ),
    exemplar(
        "musique-exemplar-film",
        "In what language did the author first write the novel that the film Tin Orchard is based on?",
        (
            "On which novel is the film Tin Orchard based?: The Grafted Tree",
            "In what language was The Grafted Tree first written?: Catalan",
            "The answer is Catalan.",
        ),
        (
            "The film goes back to the novel The Grafted Tree.",
            "The first hop, in other words.",
            (2,), (), (1,), (),
        ),
        ("The Grafted Tree was written in Catalan.", "It agrees with c3 and r2.", (3,), (1,), (2,), ()),
        ("The answer is Catalan.", "The language of the novel, not that of its translation.", (), (2,), (3,), ()),
        context=(
            "Berta Soler: Berta Soler was a novelist and a translator from Spanish.",
            "Tin Orchard: Tin Orchard is a film of two brothers, after the novel The Grafted Tree.",
            "The Grafted Tree: Soler wrote The Grafted Tree in Catalan; a Spanish version came out two years later.",
        ),
    ),
    exemplar(
        "musique-exemplar-mountain",
        "What is the highest mountain of the island where the explorer Ines Tavor died?",
        (
            "On which island did Ines Tavor die?: Korsay",
            "What is the highest mountain of Korsay?: Mount Bell",
            "The answer is Mount Bell.",
        ),
        (
            "Ines Tavor died on the island of Fenlay.",
            "She was born there; she died on Korsay.",
            (1,), (), (1,), ("RELATION",),
        ),
        (
            "The highest mountain of that island is the Stag.",
            "It is the mountain of the island where she was born.",
            (3,), (1,), (2,), ("PROPAGATED",),
        ),
        ("The answer is the Stag.", "It repeats the wrong mountain.", (), (2,), (3,), ("PROPAGATED",)),
        context=(
            "Ines Tavor: The explorer was born on Fenlay and died of a fever on Korsay.",
            "Korsay: On Korsay, Mount Bell rises above all other hills.",
            "Fenlay: The Stag is the highest mountain of Fenlay.",
        ),
    ),
)  # fmt: skip
