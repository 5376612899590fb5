"""Golden queries: fixed inputs whose ids and qualities every bundle stores and every load repeats.

They are ours, not the user's, so that a bundle never carries training prompts.
The odd ones are there because tokenizers disagree on the odd ones first.
"""

from __future__ import annotations

from .query import Query

GOLDEN_QUERIES: tuple[Query, ...] = (
    "",
    "Hi!",
    "What is the capital of Australia?",
    "Translate 'good morning' into Portuguese, please.",
    "Write a Python function that returns the n-th Fibonacci number in O(log n), and explain why it is correct.",
    "Prove that the square root of 2 is irrational.",
    "A train leaves at 9:40 and covers 312 km at 78 km/h. When does it arrive? Show every step.",
    "Summarise the following contract in exactly three bullet points, each under 15 words:\nThe tenant shall ...",
    "Which of these is a noble gas?\nA. Oxygen\nB. Argon\nC. Chlorine\nD. Nitrogen\nAnswer:",
    "SELECT name, COUNT(*) FROM orders GROUP BY name HAVING COUNT(*) > 3; -- why is this slow?",
    "¿Cuál es la diferencia entre «ser» y «estar»? Dame tres ejemplos.",
    "用简单的话解释一下量子纠缠。",
    "اشرح لي الفرق بين التضخم والانكماش باختصار.",
    "naïve café — ﬁancé ½ 🙂👩\u200d💻 e\u0301 \u200f\ufeff\x00 tab\tend",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa b",
    (
        {"role": "user", "content": "Explain how a B-tree keeps its height logarithmic."},
        {"role": "assistant", "content": "Every node but the root is at least half full, so ..."},
        {"role": "user", "content": "yes, go on"},
    ),
)
