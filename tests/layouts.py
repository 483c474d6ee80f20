r"""Solutions in the layouts that people's models write, with their steps: for tests of the rule, and of docs/tasks.md.

`LAYOUTS` are the ten of docs/tasks.md, by what they show; `MORE` are relatives. A step is written here on one line.
"""

LAYOUTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "one paragraph": (
        "Ada has 5 apples. Ben has 3 more, so he has 5 + 3 = 8. The answer is 8.",
        ("Ada has 5 apples.", "Ben has 3 more, so he has 5 + 3 = 8.", "The answer is 8."),
    ),
    "lines": (
        "Ada has 5 apples\nBen has 5 + 3 = 8 apples\n#### 8",
        ("Ada has 5 apples", "Ben has 5 + 3 = 8 apples", "#### 8"),
    ),
    "displays": (
        "To find \\(x\\), we subtract 3 from both sides:\n\\[\n\\begin{aligned}\nx &= 7 - 3 \\\\\n"
        "&= 4,\n\\end{aligned}\n\\]\n"
        "where 7 is the sum. Thus $x = \\boxed{4}$.",
        (
            r"To find \(x\), we subtract 3 from both sides: \[ \begin{aligned} x &= 7 - 3 \\ &= 4, \end{aligned} \] "
            "where 7 is the sum.",
            r"Thus $x = \boxed{4}$.",
        ),
    ),
    "numbered list": (
        "We go step by step:\n\n1. **Add**: 2 and 3 make 5.\n   - check: 5 - 3 = 2\n"
        "2. **Double** it:\n   \\[5 \\cdot 2 = 10\\]\n\n"
        "Therefore, the answer is $10$.",
        (
            "We go step by step: 1. **Add**: 2 and 3 make 5. - check: 5 - 3 = 2",
            r"2. **Double** it: \[5 \cdot 2 = 10\]",
            "Therefore, the answer is $10$.",
        ),
    ),
    "bold headings": (
        "**Step 1:** Add 2 and 3.\n\n2 + 3 = 5\n\n**Step 2:** Double it.\n\n5 * 2 = 10\n\nThe answer is 10.",
        ("**Step 1:** Add 2 and 3. 2 + 3 = 5", "**Step 2:** Double it. 5 * 2 = 10", "The answer is 10."),
    ),
    "headings": (
        "## Step 1: Find the sum\nThe sum is 2 + 3. That is 5.\n\n## Step 2: Double the sum\nTwice 5 is 10.\n\n"
        "The final answer is: $\\boxed{10}$",
        (
            "## Step 1: Find the sum The sum is 2 + 3. That is 5.",
            "## Step 2: Double the sum Twice 5 is 10.",
            r"The final answer is: $\boxed{10}$",
        ),
    ),
    "sections": (
        "### Solution\n\nLet $x$ be the price. Then $2x = 10$.\n\n---\n\n**Final Answer**\n\n$x = 5$",
        ("### Solution Let $x$ be the price.", "Then $2x = 10$. ---", "**Final Answer** $x = 5$"),
    ),
    "bullets": (
        "Given:\n- a = 1\n- b = 2\n\nWe add both:\n$$\na + b = 3\n$$\nSo the sum is 3.",
        ("Given: - a = 1 - b = 2", "We add both: $$ a + b = 3 $$", "So the sum is 3."),
    ),
    "table": (
        "The values are\n\n| n | n² |\n|---|----|\n| 1 | 1 |\n| 2 | 4 |\n\nTheir sum is 5.",
        ("The values are | n | n² | |---|----| | 1 | 1 | | 2 | 4 |", "Their sum is 5."),
    ),
    "code": (
        "Run this:\n```python\na = 1\n\nprint(a)\n```\nIt prints 1.",
        ("Run this: ```python a = 1 print(a) ```", "It prints 1."),
    ),
}

MORE: tuple[tuple[str, int], ...] = (
    ("We compute\n\\[\n\\begin{aligned}\nx &= 4+3 \\\\\n&= 7\n\\end{aligned}\n\\]\nThe answer is 7.", 2),
    ("1. First add 2 and 3 to get 5.\n2. Then double it to get 10.\nThe answer is 10.", 3),
    ("1) Add 2 and 3.\n2) Double it.\n\nAnswer: 10", 3),
    ("1\\. Add 2 and 3.\n2\\. Double it.\nThe answer is 10.", 3),
    ("(1) Add 2 and 3.\n(2) Double it.\nThe answer is 10.", 3),
    ("1.\nAdd 2 and 3.\n2.\nDouble it.\nThe answer is 10.", 3),
    ("1. Add 2 and 3. 2. Double it. The answer is 10.", 3),
    ("1. **Add**\n\n   2 + 3 = 5\n\n2. **Double**\n\n   5 * 2 = 10\n\nThe answer is 10.", 3),
    ("1. **Add**:\n\n2 + 3 = 5\n\n2. **Double**:\n\n5 * 2 = 10\n\nThe answer is 10.", 3),
    ("1. Add:\n\\[2 + 3 = 5\\]\n2. Double:\n\\[5 \\cdot 2 = 10\\]\nThe answer is \\(\\boxed{10}\\).", 3),
    ("1. Add 2 and 3.\n   a. That is 5.\n   b. It is odd.\n2. Double it.\nThe answer is 10.", 3),
    ("1. Add 2 and 3.\n- That is 5.\n2. Double it.\n- That is 10.\n\nThe answer is 10.", 3),
    ("First we note this. Now:\n\n1. Add 2 and 3.\n2. Double it.\n\nThe answer is 10.", 4),
    ("**1. Add**\n2 + 3 = 5\n**2. Double**\n5 * 2 = 10\n**Answer:** 10", 3),
    ("**1.** Add 2 and 3.\n**2.** Double it.\nThe answer is 10.", 3),
    ("**Step 1**\n\nAdd 2 and 3.\n\n**Step 2**\n\nDouble it.\n\n**The answer is 10.**", 3),
    ("**Step 1: Add**\n2 + 3 = 5\n\n**Step 2: Double**\n5 * 2 = 10\n\n\\[\\boxed{10}\\]", 2),
    ("Step 1: Add 2 and 3.\n2 + 3 = 5\nStep 2: Double it.\n5 * 2 = 10\nThe answer is 10.", 3),
    ("Step 1: Add 2 and 3 to get 5.\nStep 2: Double it to get 10.\nThe answer is 10.", 3),
    ("Step 1: Add 2 and 3. It is 5. Step 2: Double it. It is 10. The answer is 10.", 3),
    ("Step 1:\nAdd 2 and 3.\n\nStep 2:\nDouble it.\n\nStep 3:\nThe answer is 10.", 3),
    ("### Step 1: Add\n2 + 3 = 5\n### Step 2: Double\n5 * 2 = 10\n### Final Answer\n10", 3),
    ("## Step 1: Add 2 and 3\n## Step 2: Double it\nThe answer is 10.", 3),
    ("### Find the sum\n\n2 + 3 = 5. It is odd.\n\n### Double it\n\n5 * 2 = 10.\n\nThe answer is 10.", 3),
    ("### Solution\n1. Add 2 and 3.\n2. Double it.\n\n### Answer\n10", 3),
    ("## Solution\n\n**Step 1:** Add.\n2 + 3 = 5\n\n**Step 2:** Double.\n5 * 2 = 10\n\n**Answer:** 10", 3),
    ("\\textbf{Step 1:} Add 2 and 3.\n\n2 + 3 = 5\n\n\\textbf{Step 2:} Double it.\n\nThe answer is 10.", 3),
    ("**Step 1:** Add.\n\n2 + 3 = 5\n\n**Step 2:** Double.\n\n5 * 2 = 10\n\nTherefore, Ben has 10 apples.", 3),
    ("**Step 1:** Add.\n\n2 + 3 = 5\n\n---\n\n**Step 2:** Double.\n\n5 * 2 = 10\n\n---\n\nThe answer is 10.", 3),
    ("We compute $$2 + 3 = 5.$$ Then we double. The answer is 10.", 3),
    ("We add:\n$$\n2 + 3 = 5\n$$\nand double:\n$$\n5 * 2 = 10.\n$$\nThe answer is 10.", 2),
    ("We add.\n\n\\[2 + 3 = 5\\]\n\nWe double.\n\n\\[5 \\cdot 2 = 10\\]\n\nThe answer is 10.", 3),
    ("We have\n\\begin{align*}\nx &= 1 \\\\\ny &= 2\n\\end{align*}\nHence $x + y = 3$.", 2),
    ("We get: \\[ x = 1. \\] Doubling gives \\[ y = 2. \\] The answer is 2.", 3),
    ("We get\n\\[ x = 1 \\]\n\\[ y = 2 \\]\nand so on.\nThe answer is 2.", 2),
    ("We have\n[\nx = 1\n]\nThe answer is 1.", 2),
    ("We have\n$x = 1$\n$y = 2$\nThe answer is 2.", 2),
    ("x = 4 + 3\n  = 7\nThe answer is 7.", 2),
    ("~~~\na = 1\n\nb = 2\n~~~\nIt is 3.", 2),
    ("We run\n\n```python\nprint(1)\n```\n\n```output\n1\n```\n\nThe answer is 1.", 2),
    ("Code:\n```\n# Step 1: a\nx = 1\n\n# Step 2: b\ny = 2\n", 1),
    ("The values:\n\nn | n²\n--|--\n1 | 1\n2 | 4\n\nThe sum is 5.", 2),
    ("- Add 2 and 3 to get 5.\n- Double it to get 10.\n\nThe answer is 10.", 3),
    ("* Add 2 and 3.\n  * That is 5.\n* Double it.\nThe answer is 10.", 3),
    ("• Add 2 and 3.\n• Double it.\nThe answer is 10.", 3),
    ("Ada paid $5. Ben paid $3 more. The answer is $8.", 3),
    ("Ada has 5.\n\nBen has 8. Together 13.\n\nThe answer is 13.", 4),
    ("Mr. Hill has e.g. 5. The ratio is 2.5 to 1. The answer is 5.", 3),
    ("The sum is 1 + 2 + ... + 10 = 55. The answer is 55.", 2),
    ("Final Answer: The final answer is $2$. I hope it is correct.", 1),
    ("Ada has 5.\n\nFinal Answer: The final answer is $2$. I hope it is correct.", 2),
    ("<step>Add 2 and 3. It is 5.</step>\n<step>Double it.</step>\nThe answer is 10.", 3),
    ("Step 1: Add 2 and 3. It is 5. ки\nStep 2: The answer is 5. ки\n", 2),
    ("<think>\nAda has 5.\nBen has 8.\n</think>\nThe answer is 8.", 3),
    ("首先,2 + 3 = 5。然后加倍。答案是10。", 3),
    ("---\nAda has 5.\n---\nThe answer is 5.\n---", 2),
    ("Ada has 5.\n\n**Step 2:**", 1),
    ("|x| = 3\n|y| = 4\nThe answer is 7.", 3),
    ("\\[x = 1\\]\n\\[y = 2\\]", 2),
    (
        "Here is a long line that somebody has broken at the width of a page so that\n"
        "it goes on below. The answer is 5.",
        2,
    ),
    ("Let $x = 1.$ It is odd. Then\n\\[x + 1 = 2.\\]Hence $2x = 2,$ so\n\\[x = 1.\\]Thus $x = \\boxed{1}.$", 5),
    ("So the sum is $$1 + 2 = 3.$$\n\nWe get \\begin{align*}\nx &= 3\n\\end{align*}From this, $x$ is odd.", 3),
    ("Okay, I need x.\n\nWait, that is wrong. Let me check.\n\n\\boxed{3}", 4),
    ("Let's solve it.\n\n**Step 1: Read**\nx = 2.\n\n**Step 2: Final Answer**\nThe answer is 2.", 3),
    ("**Given:** a = 2.\n\n**Solution:** a + 3 = 5.\n\nThe answer is 5.", 3),
    ("- **Step 1:** Add 2 and 3.\n- **Step 2:** Double it.\n\nThe answer is 10.", 3),
    ("Step 1 - Add 2 and 3.\nStep 2 - Double it.\nThe answer is 10.", 3),
    ("The sum is 5. It has three parts:\n- a\n- b\n- c\nThe answer is 5.", 3),
    ("1) Add 2 and 3. 2) Double it. 3) The answer is 10.", 3),
    ("(1) Add 2 and 3. (2) Double it.", 2),
    ("By Fig. 1 we have x = 3. On p. 2 it is y = 4. The answer is 7.", 3),
    ("In Jan. 2020 it was 3 ft. 2 in. long. Then it grew.", 2),
    ("Prof. A. B. Hill has 3. She buys 4.", 2),
    ("| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |", 1),
    ("a | b\n---|---\n1 | 2\n\nThe answer is 3.", 2),
    ("Solution. We have x = 3. So y = 4.", 2),
    ("Proof.\n\nWe have x = 3. So y = 4.", 2),
    ("## Step 1: Add\n2 + 3 = 5\n\n## Step 2: Find the result\n5 * 2 = 10\n\nThe final answer is: $\\boxed{10}$", 3),
    ("Step 1: Add.\n2 + 3 = 5\n\nStep 2: State the final answer.\nThe final answer is 5.", 2),
    ("1. Step 1: Add 2 and 3.\n2. Step 2: Double it.", 2),
    ("*Step 1*\nAdd 2 and 3.\n*Step 2*\nDouble it.", 2),
    ("|AB| = 3. |BC| = 4. So |AC| = 5.", 3),
    ("  \n\n", 1),
    ("", 0),
)
