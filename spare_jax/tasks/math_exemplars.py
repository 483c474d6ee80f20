r"""Graded solutions to show the annotator of MATH: problems, references and candidates invented for this project.

Two for each of its seven subjects, one all correct and one with an error. Most correct candidates go another way than
their reference; among the others are a wrong step that nothing builds on and an error at the very end.
"""

from spare_jax.tasks.exemplars import exemplar
from spare_jax.tasks.task import Exemplar


def exemplars() -> tuple[Exemplar, ...]:
    """The pool."""
    return _POOL


_POOL = (
    exemplar(
        "math-exemplar-algebra-absolute-value",
        r"Two real numbers $x$ satisfy $|2x - 7| = x + 4$. What do they add up to?",
        (
            r"If $2x - 7 \ge 0$, then $2x - 7 = x + 4$ and $x = 11$.",
            r"If $2x - 7 < 0$, then $7 - 2x = x + 4$ and $x = 1$.",
            r"Both fit their case, so the sum is $11 + 1 = \boxed{12}$.",
        ),
        (
            r"Squaring gives $(2x - 7)^2 = (x + 4)^2$, that is $x^2 - 12x + 11 = 0$.",
            r"Another route than the cases of the reference: $4x^2 - 28x + 49 = x^2 + 8x + 16$, divided by 3.",
            (1,), (), (), (),
        ),
        (
            r"Its roots are 1 and 11, and $x + 4$ is positive for both, so neither is lost or gained.",
            "These are the two numbers of r1 and r2, and it makes sure that squaring has added none.",
            (1,), (1,), (1, 2), (),
        ),
        (r"The answer is $\boxed{12}$.", r"The sum $11 + 1$, as in r3.", (2,), (2,), (3,), ()),
    ),
    exemplar(
        "math-exemplar-algebra-square-root",
        r"Let $T$ be the sum of all real $x$ for which $\sqrt{3x + 10} = x + 2$. Find $T$.",
        (
            r"Squaring gives $3x + 10 = x^2 + 4x + 4$, so $x^2 + x - 6 = 0$ and $x = 2$ or $x = -3$.",
            r"For $x = 2$ both sides are $\sqrt{16} = 4$.",
            r"For $x = -3$ the left side is 1 and the right side is $-1$, so it is no solution.",
            r"The only solution is 2, and $T = \boxed{2}$.",
        ),
        (r"Squaring gives $x^2 + x - 6 = 0$.", "The equation of r1.", (1,), (), (1,), ()),
        (
            r"So $(x - 2)(x + 3) = 0$, and both $x = 2$ and $x = -3$ solve the equation with the root.",
            r"The factors are right, but for $-3$ the root would be $x + 2 = -1$, and no root is negative.",
            (1,), (1,), (1, 3), ("CASE",),
        ),
        (r"Hence $T = 2 + (-3) = -1$.", r"It adds $-3$, which is no solution.", (1, 2), (2,), (4,), ("PROPAGATED",)),
        (r"The answer is $\boxed{-1}$.", "It repeats the wrong sum; r4 has 2.", (2,), (3,), (4,), ("PROPAGATED",)),
    ),
    exemplar(
        "math-exemplar-counting-even",
        "Four different digits from 1 to 6 form an even number whose first digit is odd. How many such numbers are "
        "there?",
        (
            "The last digit is 2, 4 or 6, and the first is 1, 3 or 5, which makes $3 \\cdot 3 = 9$ choices.",
            "For the two digits between them 4 and then 3 are left.",
            r"There are $9 \cdot 4 \cdot 3 = \boxed{108}$ numbers.",
        ),
        (
            r"Without the condition on the first digit there are $3 \cdot 5 \cdot 4 \cdot 3 = 180$ even numbers.",
            "It counts more than is asked for in order to subtract: last digit first, then three others of five.",
            (1,), (), (), (),
        ),
        (
            r"Of these $3 \cdot 2 \cdot 4 \cdot 3 = 72$ begin with an even digit.",
            "Three last digits leave two even first ones, and four and three digits for the middle.",
            (1,), (), (2,), (),
        ),
        (r"So $180 - 72 = 108$ begin with an odd digit.", "The count of r3.", (1, 2), (1, 2), (1, 2, 3), ()),
        (r"The answer is $\boxed{108}$.", "It is what is asked for.", (2,), (3,), (3,), ()),
    ),
    exemplar(
        "math-exemplar-counting-gloves",
        "In a drawer lie 5 left gloves and 4 right gloves. Nora takes three of them at once without looking. "
        "With what probability has she exactly two left gloves?",
        (
            r"There are $\binom{9}{3} = 84$ ways to take three gloves.",
            r"In $\binom{5}{2} \cdot 4 = 40$ of them two are left gloves.",
            r"The probability is $\frac{40}{84} = \boxed{\frac{10}{21}}$.",
        ),
        (
            r"Each glove is a left one with probability $\frac{5}{9}$ and a right one with probability $\frac{4}{9}$.",
            "True of every single glove.",
            (1,), (), (), (),
        ),
        (
            r"So two left ones and a right one come with probability $3 \cdot (\frac{5}{9})^2 \cdot \frac{4}{9} = "
            r"\frac{100}{243}$.",
            "This would be right if each glove were put back; she takes three at once, as r1 and r2 count.",
            (1, 2), (1,), (1, 2, 3), ("COMPREHENSION",),
        ),
        (r"The answer is $\boxed{\frac{100}{243}}$.", "It repeats it.", (3,), (2,), (3,), ("PROPAGATED",)),
    ),
    exemplar(
        "math-exemplar-geometry-chord",
        "A chord of length 16 cuts a circle of radius 10 into two parts. How high is the smaller part, measured from "
        "the middle of the chord to the arc?",
        (
            r"Half the chord is 8, so the centre is $\sqrt{10^2 - 8^2} = 6$ away from it.",
            r"The height of the smaller part is $10 - 6 = \boxed{4}$.",
        ),
        (
            r"Let the height be $h$ and extend it to a diameter: its parts are $h$ and $20 - h$.",
            "The diameter through the middle of the chord; another route than the distance from the centre.",
            (1,), (), (), (),
        ),
        (
            r"Two chords that cross have equal products of their parts, so $h(20 - h) = 8 \cdot 8 = 64$.",
            "The theorem holds, and the chord is halved.",
            (1,), (1,), (), (),
        ),
        (
            r"This is $h^2 - 20h + 64 = 0$, with the roots 4 and 16, and the smaller part has $h = 4$.",
            "16 is the height of the greater part; 4 agrees with r2.",
            (2,), (2,), (2,), (),
        ),
        (r"The answer is $\boxed{4}$.", "The height that is asked for.", (2,), (3,), (2,), ()),
    ),
    exemplar(
        "math-exemplar-geometry-altitude",
        r"Triangle $PQR$ has a right angle at $Q$, and $PQ = 9$ and $QR = 12$. The altitude from $Q$ meets $PR$ at "
        r"$S$. How long is $QS$?",
        (
            r"By Pythagoras $PR = \sqrt{9^2 + 12^2} = 15$.",
            r"The area is $\frac{9 \cdot 12}{2} = 54$.",
            r"It is also half of $15 \cdot QS$, so $QS = \frac{108}{15} = \boxed{\frac{36}{5}}$.",
        ),
        (r"The hypotenuse is $PR = \sqrt{81 + 144} = 15$.", "As in r1.", (1,), (), (1,), ()),
        (
            r"The altitude to the hypotenuse halves it, so $PS = \frac{15}{2}$.",
            "Only the median halves a side; an altitude does so where the two other sides are equal, and 9 is not 12.",
            (1, 2), (1,), (), ("THEOREM",),
        ),
        (
            r"Then $QS^2 = 81 - \frac{225}{4} = \frac{99}{4}$.",
            r"Pythagoras in triangle $PSQ$, with the wrong $PS$.",
            (1,), (2,), (3,), ("PROPAGATED",),
        ),
        (
            r"The answer is $\boxed{\frac{3\sqrt{11}}{2}}$.",
            r"The root of a wrong square; r3 has $\frac{36}{5}$.",
            (3,), (3,), (3,), ("PROPAGATED",),
        ),
    ),
    exemplar(
        "math-exemplar-intermediate-algebra-minimum",
        r"The point $(x, y)$ moves on the line $x + 2y = 10$. Find the least value that $x^2 + y^2$ takes.",
        (
            r"By Cauchy's inequality $(1^2 + 2^2)(x^2 + y^2) \ge (x + 2y)^2 = 100$.",
            r"So $x^2 + y^2 \ge \frac{100}{5} = 20$, and $x = 2$, $y = 4$ reaches it: $2^2 + 4^2 = 20$.",
            r"The least value is $\boxed{20}$.",
        ),
        (
            r"With $x = 10 - 2y$ it becomes $5y^2 - 40y + 100 = 5(y - 4)^2 + 20$.",
            "Another route: it puts the line into the expression and completes the square, both rightly.",
            (1, 2), (), (), (),
        ),
        (
            r"The square is at least 0, and 0 at $y = 4$.",
            r"The same point as in r2, where $x = 10 - 2 \cdot 4 = 2$.",
            (1,), (1,), (2,), (),
        ),
        (r"The answer is $\boxed{20}$.", "The bound that is reached.", (2,), (1, 2), (3,), ()),
    ),
    exemplar(
        "math-exemplar-intermediate-algebra-roots",
        r"One root of $x^3 - 8x^2 + kx - 12$ is 3. What is the product of the two other roots?",
        (
            "By Vieta the product of all three roots is 12.",
            r"So the product of the two others is $\frac{12}{3} = \boxed{4}$.",
        ),
        (
            r"Putting in 3 gives $27 - 72 + 3k - 12 = 0$, and $27 - 72 - 12 = -47$, so $3k = 47$.",
            r"The substitution is right, but $27 - 72 - 12 = -57$ and $3k = 57$.",
            (1,), (), (), ("NUMERIC",),
        ),
        (r"Hence $k = \frac{47}{3}$.", r"It divides the wrong 47; $k$ is 19.", (1,), (1,), (), ("PROPAGATED",)),
        (
            r"The three roots multiply to 12, whatever $k$ is, so the two others multiply to $\frac{12}{3} = 4$.",
            "It does not use the wrong value: by Vieta the product depends on the last coefficient alone.",
            (1, 2), (), (1, 2), (),
        ),
        (r"The answer is $\boxed{4}$.", "It rests on the right step s3.", (2,), (3,), (2,), ()),
    ),
    exemplar(
        "math-exemplar-number-theory-power",
        r"Somebody writes $7^{102}$ as a multiple of 25 and a remainder from 0 to 24. What is the remainder?",
        (
            r"$7^2 = 49$ is one less than $2 \cdot 25 = 50$, so $7^2 \equiv -1 \pmod{25}$.",
            r"Then $7^{102} \equiv (-1)^{51} \equiv -1 \pmod{25}$.",
            r"The remainder is $25 - 1 = \boxed{24}$.",
        ),
        (
            r"$7^4 = 2401 = 96 \cdot 25 + 1$, so $7^4$ leaves 1.",
            "It goes to the fourth power at once, two steps of the reference's idea.",
            (1,), (), (1,), (),
        ),
        (
            r"As $102 = 4 \cdot 25 + 2$, the power leaves what $7^2 = 49$ leaves, and $49 - 25 = 24$.",
            "The fourth powers drop out, and 24 agrees with r3.",
            (1,), (1,), (2, 3), (),
        ),
        (r"The answer is $\boxed{24}$.", "It lies between 0 and 24, as is asked.", (1, 2), (2,), (3,), ()),
    ),
    exemplar(
        "math-exemplar-number-theory-divisible",
        r"Among the integers $n$ from 1 to 30, for how many does 9 divide $n^2 + n + 7$?",
        (
            r"For $n = 3k$ or $n = 3k + 2$ the value leaves 1 when it is divided by 3.",
            r"For $n = 3k + 1$ it is $9k^2 + 9k + 9$, always a multiple of 9.",
            r"From 1 to 30 that makes $\frac{30}{3} = \boxed{10}$ integers.",
        ),
        (r"$n = 1$ gives $1 + 1 + 7 = 9$, which works.", "A true case of r2.", (1,), (), (2,), ()),
        (
            r"Remainders repeat after 9, so exactly 1, 10, 19 and 28 work.",
            "They do work, but nothing shows that no others do: $n = 4$ gives $16 + 4 + 7 = 27$.",
            (1,), (1,), (2, 3), ("UNSUPPORTED",),
        ),
        (r"The answer is $\boxed{4}$.", "It counts these four; r3 has 10.", (1,), (2,), (3,), ("PROPAGATED",)),
    ),
    exemplar(
        "math-exemplar-prealgebra-average",
        "Five numbers have the average 18. Without the largest one the average of the rest is 15. What is the largest?",
        (
            r"All five add up to $5 \cdot 18 = 90$.",
            r"The other four add up to $4 \cdot 15 = 60$.",
            r"The largest is $90 - 60 = \boxed{30}$.",
        ),
        (
            r"The four others are $18 - 15 = 3$ below the average each, so the largest is $4 \cdot 3 = 12$ above it.",
            "What lies above an average and what lies below it balance; no sums are needed.",
            (1, 2), (), (1, 2), (),
        ),
        (r"The answer is $\boxed{30}$, as $18 + 12 = 30$.", "The number of r3.", (1, 3), (1,), (3,), ()),
    ),
    exemplar(
        "math-exemplar-prealgebra-rectangle",
        "A rectangle is 24 cm long and 15 cm wide. It is made 25% shorter and 20% wider. "
        "By what percentage does its area shrink?",
        (
            r"The area was $24 \cdot 15 = 360$ square centimetres.",
            r"The new sides are $24 \cdot 0.75 = 18$ and $15 \cdot 1.2 = 18$, with the area $18 \cdot 18 = 324$.",
            r"It shrinks by $\frac{360 - 324}{360} = \frac{1}{10}$, that is by $\boxed{10}$ percent.",
        ),
        (
            r"The new rectangle is a square with sides of $24 - 6 = 18$ and $15 + 3 = 18$.",
            "A quarter of 24 is 6, and a fifth of 15 is 3.",
            (1, 2), (), (2,), (),
        ),
        (
            r"The area goes from $24 \cdot 15 = 360$ down to $18 \cdot 18 = 324$.",
            "As in r1 and r2.",
            (1,), (1,), (1, 2), (),
        ),
        (
            r"The answer is $\boxed{36}$.",
            "36 square centimetres are lost; the question asks for a percentage, and 36 of 360 are 10 percent.",
            (3,), (2,), (3,), ("ANSWER",),
        ),
    ),
    exemplar(
        "math-exemplar-precalculus-angle",
        r"Find the cosine of the angle between the vectors $(3, 4)$ and $(5, -12)$.",
        (
            r"The dot product is $3 \cdot 5 + 4 \cdot (-12) = -33$.",
            r"The lengths are $\sqrt{3^2 + 4^2} = 5$ and $\sqrt{5^2 + 12^2} = 13$.",
            r"The cosine is $\frac{-33}{5 \cdot 13} = \boxed{-\frac{33}{65}}$.",
        ),
        (
            r"The vector between their ends is $(2, -16)$, with the squared length $4 + 256 = 260$.",
            "The third side of the triangle that the two vectors span; another route.",
            (1,), (), (), (),
        ),
        (
            r"The vectors have the squared lengths $9 + 16 = 25$ and $25 + 144 = 169$.",
            "The squares of the lengths in r2.",
            (1,), (), (2,), (),
        ),
        (
            r"By the law of cosines the cosine is $\frac{25 + 169 - 260}{2 \cdot 5 \cdot 13} = -\frac{66}{130}$.",
            "The law is applied rightly, and the value is that of r3.",
            (1,), (1, 2), (1, 3), (),
        ),
        (r"The answer is $\boxed{-\frac{33}{65}}$.", "The fraction of s3, halved.", (1,), (3,), (3,), ()),
    ),
    exemplar(
        "math-exemplar-precalculus-equation",
        r"How many angles $\theta$ with $0 \le \theta < 2\pi$ satisfy $2\sin^2\theta = \sin\theta$?",
        (
            r"The equation says $\sin\theta (2\sin\theta - 1) = 0$.",
            r"$\sin\theta = 0$ at $0$ and $\pi$.",
            r"$\sin\theta = \frac{1}{2}$ at $\frac{\pi}{6}$ and at $\frac{5\pi}{6}$.",
            r"Together that makes $2 + 2 = \boxed{4}$ angles.",
        ),
        (
            r"Dividing by $\sin\theta$ leaves $2\sin\theta = 1$, which has the same solutions.",
            r"It divides by what may be 0 and loses the angles of r2.",
            (1,), (), (1, 2), ("CASE",),
        ),
        (
            r"The angles with $\sin\theta = \frac{1}{2}$ are $\frac{\pi}{6}$ and, mirrored, $\frac{5\pi}{6}$.",
            "True by itself, as r3 says.",
            (1,), (), (3,), (),
        ),
        (
            r"The answer is $\boxed{2}$.",
            r"It takes the solutions of $2\sin\theta = 1$ for all; r4 has 4.",
            (1,), (1, 2), (4,), ("PROPAGATED",),
        ),
    ),
)  # fmt: skip
