"""Templates of the sample's prompts: three levels of difficulty for each topic, and the fillers of their slots."""

from __future__ import annotations

Template = tuple[list[list[str]], dict[str, list[str]]]

_CITIES = ["Lisbon", "Nairobi", "Osaka", "Toronto", "Lima", "Oslo", "Hanoi", "Cairo", "Dublin", "Quito", "Perth"]
_THINGS = ["a bakery", "a choir", "a bicycle shop", "a school library", "a small farm", "a chess club", "a night bus"]
_LANGUAGES = ["Spanish", "German", "Portuguese", "Italian", "Dutch", "Swedish", "Polish", "Turkish"]
_CODES = ["Python", "Rust", "Go", "TypeScript", "Java", "C++", "SQL"]

#: For each topic, the templates of the three levels and the fillers of their slots. {n} is a number.
TOPICS: dict[str, Template] = {
    "chat": (
        [
            [
                "Hi! How is your day?",
                "Thanks, that helped.",
                "Tell me a fun fact about {city}.",
                "Say hello to {name}.",
            ],
            ["Suggest {n} gift ideas for {name}, who runs {thing}.", "Plan a relaxed Sunday in {city} with {name}."],
            ["Mediate fairly between {name} and {other}, who disagree about {thing} in {city}."],
        ],
        {
            "city": _CITIES,
            "name": ["Ana", "Tom", "Yuki", "Omar", "Lena", "Raj"],
            "other": ["Mia", "Ben", "Zoe", "Ali"],
            "thing": _THINGS,
        },
    ),
    "mathematics": (
        [
            ["What is {n} plus {n}?", "How many minutes are {n} hours?", "Round {n}.{n} to one decimal place."],
            [
                "A shop sells {n} pens at {n} cents each and gives {n} % off. What is the total? Show the steps.",
                "Solve {n}x + {n} = {n} for x.",
                "What is the probability of two heads in {n} coin tosses?",
            ],
            [
                "Prove that {structure} of order {n} is {property}, and state every lemma you use.",
                "Evaluate the integral of x^{n} exp(-{n} x) from 0 to infinity and justify the convergence.",
                "Find all integer solutions of x^2 - {n} y^2 = 1 and prove that there are no others.",
            ],
        ],
        {
            "structure": ["a group", "a ring", "a finite field", "a lattice", "a graph"],
            "property": ["cyclic", "solvable", "commutative", "simple", "bipartite", "complete"],
        },
    ),
    "code": (
        [
            ["How do I print a list in {code}?", "What does `{call}` do in {code}?", "Write a loop to {n} in {code}."],
            [
                "Write a {code} function that parses {format} and returns the {n} largest values.",
                "Why does this {code} snippet raise an error? `x = {call}; x[{n}]`",
            ],
            [
                "Design a lock-free {structure} in {code}, prove its linearizability, and bound its memory by {n} MB.",
                "Refactor a {code} service with {n} endpoints from {format} to event sourcing without downtime.",
            ],
        ],
        {
            "code": _CODES,
            "call": ["map(f, xs)", "sorted(xs)", "zip(a, b)", "range(9)", "dict()"],
            "format": ["JSON", "CSV", "YAML", "a log file", "an XML feed"],
            "structure": ["queue", "hash map", "skip list", "ring buffer", "stack"],
        },
    ),
    "facts": (
        [
            ["What is the capital near {city}?", "Who wrote {book}?", "In which century was {city} founded?"],
            ["Compare the climate of {city} and {place} in {n} words.", "Summarise the plot of {book} in {n} words."],
            ["Trace how trade through {city} shaped the politics of {place} over {n} years, with primary sources."],
        ],
        {
            "city": _CITIES,
            "place": ["Iceland", "Ghana", "Chile", "Vietnam", "Estonia", "Morocco"],
            "book": ["the Odyssey", "Don Quixote", "Middlemarch", "Things Fall Apart", "The Tale of Genji"],
        },
    ),
    "writing": (
        [
            ["Write a short thank-you note to {name}.", "Give me a title for an essay on {thing}."],
            [
                "Write a {n}-word product text for {thing} in {city}, friendly in tone.",
                "Rewrite this politely: '{name} must answer by day {n}.'",
            ],
            [
                "Write a sonnet on {thing} in which every line starts with a letter of {city}, in iambic pentameter.",
                "Write a {n}-word story told backwards about {thing}; no sentence may exceed ten words.",
            ],
        ],
        {"name": ["Ana", "Tom", "Yuki", "Omar"], "thing": _THINGS, "city": _CITIES},
    ),
    "reasoning": (
        [
            [
                "Which is heavier, {n} kg of feathers or {n} kg of iron?",
                "If today is day {n}, which day was yesterday?",
            ],
            [
                "{n} people sit in a circle and every second one leaves. Who stays? Explain step by step.",
                "Three boxes are labelled wrongly; one holds {item}. How many do you open? Reason step by step.",
            ],
            [
                "Analyse the trade-offs of {policy} for {n} stakeholders with conflicting goals and argue against it.",
                "Design an experiment that tells {policy} from chance with {n} subjects and defend its power analysis.",
            ],
        ],
        {
            "item": ["apples", "keys", "coins", "marbles"],
            "policy": ["a carbon tax", "rent control", "open borders", "a four-day week", "road pricing"],
        },
    ),
    "translation": (
        [
            ["Translate 'good morning, {name}' into {language}.", "How do you say '{word}' in {language}?"],
            [
                "Translate this notice into formal {language}: 'The {word} closes at {n}.'",
                "Correct my {language}: '{name} have {n} {word}.'",
            ],
            ["Translate a legal clause about {word} into {language}, keep its ambiguity, and comment each choice."],
        ],
        {
            "name": ["Ana", "Tom", "Yuki", "Omar"],
            "language": _LANGUAGES,
            "word": ["library", "bridge", "kitchen", "market", "harbour", "garden", "station"],
        },
    ),
    "medicine": (
        [
            ["How many hours of sleep are recommended at age {n}?", "What is {drug} used for?"],
            [
                "List {n} common side effects of {drug} and when to see a doctor.",
                "Explain the difference between {condition} and a cold to a patient.",
            ],
            [
                "A {n}-year-old on {drug} develops {condition}; give the differential diagnosis and the work-up.",
                "Appraise trials of {drug} in {condition} for bias and absolute risk.",
            ],
        ],
        {
            "drug": ["ibuprofen", "metformin", "warfarin", "amoxicillin", "lisinopril"],
            "condition": ["migraine", "asthma", "anaemia", "hypertension", "pneumonia", "arrhythmia"],
        },
    ),
}

FOLLOW_UPS = ["yes", "go on", "do it", "and why?", "shorter, please", "thanks, now the second part"]

_OPENINGS = ["Here is the answer", "In short", "Step by step", "To begin with"]
ANSWERS: dict[str, list[str]] = {
    topic: [
        f"{opening}: the question on {topic} has this solution, with the reasons in order." for opening in _OPENINGS
    ]
    for topic in TOPICS
}
WEAK_ANSWERS = [
    "I am not sure, but it might be something like that.",
    "I'm sorry, I can't help with that.",
    "The answer is obvious.",
    "It depends. There are many aspects to consider, and perhaps one could look it up.",
]
