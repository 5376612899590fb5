"""A WordPiece tokenizer with BERT's normalisation as nodes of a graph, exact in every script.

The operator `BertTokenizer` of onnxruntime-extensions strips accents of Latin letters alone, has its own list of
punctuation, and keeps the known beginning of an unknown word: it tokenizes most scripts otherwise. So the graph
normalises and splits the text before an operator sees it. BERT's normalisation and its splitting look at one character
at a time, which makes a table of all characters an exact copy of them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from ...routers.errors import InputError

#: The domain of the operators of onnxruntime-extensions.
_EXTENSIONS = "ai.onnx.contrib"
_ML = "ai.onnx.ml"
#: The sets of operators that the nodes need beside ONNX's own, with their versions.
OPERATORS = {_EXTENSIONS: 1, _ML: 2}
#: Stands between two characters while the text is split. BERT's normalisation drops it from every text.
_BETWEEN = "\x1f"
#: The last of the private characters that stand for written-out special tokens; BERT's normalisation drops them too.
_PRIVATE = 0xF8FF
_SURROGATES = range(0xD800, 0xE000)
_BLOCK = 256
_SCALARS = (("zero", 0), ("one", 1))


@dataclass(frozen=True)
class CharacterTable:
    """What becomes of every character; those that are in no field stay as they are.

    Attributes:
        dropped: are left out.
        spaces: become a space.
        words: are words of their own: ideographs and punctuation.
        mapped: become other text.
    """

    dropped: list[str]
    spaces: list[str]
    words: list[str]
    mapped: dict[str, str]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> CharacterTable:
        """The table of a tokenizer that normalises and splits as BERT does."""
        table = cls([], [], [], {})
        normalise = tokenizer.normalizer.normalize_str
        everything = "a".join(chr(code) for code in range(1, sys.maxunicode + 1) if code not in _SURROGATES)
        alone = {word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(everything) if len(word) == 1} - {"a"}
        for start in range(0, sys.maxunicode + 1, _BLOCK):
            block = [chr(code) for code in range(max(start, 1), start + _BLOCK) if code not in _SURROGATES]
            if not normalise("".join(block)):
                table.dropped.extend(block)
                continue
            for character in block:
                normalised = normalise(character)
                text = "".join(f" {one} " if one in alone else one for one in normalised)
                if not text:
                    table.dropped.append(character)
                elif not text.strip():
                    table.spaces.append(character)
                elif text.strip() != character:
                    table.mapped[character] = text
                elif text != character:
                    table.words.append(character)
        return table


class TokenizerNodes:
    """The nodes from a text (1,) to its token ids (length,), without those that the tokenizer puts around it.

    Attributes:
        nodes: the nodes.
        constants: the constants that they read.
        ids: the name of the result, int64.
    """

    def __init__(self, helper: Any, tokenizer_json: bytes, source: str) -> None:
        """Make the nodes.

        Args:
            helper: `onnx.helper`.
            tokenizer_json: bytes of the tokenizer.
            source: the name of the text.

        Raises:
            InputError: the tokenizer is not WordPiece with BERT's normalisation.
        """
        content = json.loads(tokenizer_json)
        _check_kind(content)
        self._helper = helper
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._constant("t_between", [_BETWEEN.encode()], 8)
        self._constant("t_space", [b" "], 8)
        self._constant("t_nothing", [b""], 8)
        self._constant("t_skip_empty", [True], 9)
        self._constant("t_zero", [0], 7)
        self.constants += [helper.make_tensor(f"t_{name}_scalar", 7, [], [value]) for name, value in _SCALARS]
        special = _special_tokens(content)
        words = self._normalised(source, CharacterTable.of(Tokenizer.from_str(tokenizer_json.decode())), special)
        self.ids = self._pieces(words, content["model"])

    def _normalised(self, source: str, table: CharacterTable, special: Sequence[str]) -> str:
        """The name of the text as words between spaces."""
        private = [chr(_PRIVATE - number) for number in range(len(special))]
        replacements = [
            *([(_class(reversed(private)), "")] if private else []),
            *((_quoted(token), character) for token, character in zip(special, private, strict=True)),
            (_class(sorted({*table.dropped, _BETWEEN}.difference(private))), ""),
            (_class(table.spaces), " "),
            (f"({_class(table.words)})", r" \1 "),
            ("((?s:.))", rf"\1{_BETWEEN}"),
        ]
        apart = self._replaced(source, replacements, "t_before")
        self._add("StringSplit", [apart, "t_between", "t_skip_empty"], ["t_places", "t_characters", "t_shape"])
        lines = "\n".join(f"{character}\t{text}" for character, text in table.mapped.items())
        self._add("StringMapping", ["t_characters"], ["t_mapped"], map=lines)
        self._add("StringJoin", ["t_mapped", "t_nothing", "t_zero"], ["t_joined"])
        written = [(character, f" {token} ") for token, character in zip(special, private, strict=True)]
        return self._replaced("t_joined", written, "t_after")

    def _pieces(self, words: str, model: dict[str, Any]) -> str:
        """The name of the ids of the pieces of words between spaces."""
        vocabulary, unknown = model["vocab"], model["unk_token"]
        self._add("StringSplit", [words, "t_space", "t_skip_empty"], ["t_word_places", "t_words", "t_word_shape"])
        self._standard("Shape", ["t_words"], "t_words_shape")
        self._standard("Squeeze", ["t_words_shape", "t_zero"], "t_count")
        self._standard("Add", ["t_count", "t_one_scalar"], "t_end_of_rows")
        self._standard("Range", ["t_zero_scalar", "t_end_of_rows", "t_one_scalar"], "t_rows")  # each word is a row
        self._add(
            "WordpieceTokenizer",
            ["t_words", "t_rows"],
            ["t_pieces", "t_row_splits", "t_row_starts", "t_row_ends"],
            vocab=json.dumps(vocabulary, ensure_ascii=False),
            suffix_indicator=model["continuing_subword_prefix"],
            unknown_token=unknown,
            max_input_chars_per_word=model["max_input_chars_per_word"],
        )
        self._add(
            "LabelEncoder",
            ["t_pieces"],
            ["t_all_ids"],
            domain=_ML,
            keys_strings=list(vocabulary),
            values_int64s=list(vocabulary.values()),
            default_int64=vocabulary[unknown],
        )
        self._constant("t_unknown", [vocabulary[unknown]], 7)
        return self._without_beginnings_of_unknown_words()

    def _without_beginnings_of_unknown_words(self) -> str:
        """The name of the ids, one for each unknown word: the operator keeps the pieces before the unknown one."""
        self._constant("t_one", [1], 7)
        self._constant("t_last_of_all", [-1], 7)
        self._constant("t_end_of_all", [2**62], 7)
        for kind, inputs, result in (
            ("Equal", ["t_all_ids", "t_unknown"], "t_is_unknown"),
            # The row of each piece: a one where a row starts, summed up.
            ("Slice", ["t_row_splits", "t_zero", "t_last_of_all"], "t_first_pieces"),
            ("Slice", ["t_row_splits", "t_one", "t_end_of_all"], "t_next_pieces"),
            ("Sub", ["t_next_pieces", "t_one"], "t_last_pieces"),
            ("Sub", ["t_all_ids", "t_all_ids"], "t_nowhere"),
            ("Shape", ["t_first_pieces"], "t_number_of_rows"),
            ("Expand", ["t_one", "t_number_of_rows"], "t_starts"),
            ("ScatterElements", ["t_nowhere", "t_first_pieces", "t_starts"], "t_where_rows_start"),
            ("CumSum", ["t_where_rows_start", "t_zero_scalar"], "t_row_from_one"),
            ("Sub", ["t_row_from_one", "t_one"], "t_row"),
            # A word is unknown when its last piece is.
            ("Gather", ["t_is_unknown", "t_last_pieces"], "t_word_is_unknown"),
            ("Gather", ["t_word_is_unknown", "t_row"], "t_in_unknown_word"),
            ("Not", ["t_in_unknown_word"], "t_in_known_word"),
            ("Or", ["t_in_known_word", "t_is_unknown"], "t_kept"),
            ("Compress", ["t_all_ids", "t_kept"], "t_ids"),
        ):
            self._standard(kind, inputs, result)
        return "t_ids"

    def _standard(self, kind: str, inputs: list[str], result: str) -> None:
        self.nodes.append(self._helper.make_node(kind, inputs, [result]))

    def _add(
        self, kind: str, inputs: list[str], outputs: list[str], domain: str = _EXTENSIONS, **attributes: Any
    ) -> None:
        self.nodes.append(self._helper.make_node(kind, inputs, outputs, domain=domain, **attributes))

    def _constant(self, name: str, values: list[Any], kind: int) -> None:
        self.constants.append(self._helper.make_tensor(name, kind, [len(values)], values))

    def _replaced(self, source: str, replacements: Sequence[tuple[str, str]], name: str) -> str:
        """Replace one pattern after the other; the name of the result."""
        for number, (pattern, text) in enumerate(replacements):
            result = f"{name}_{number}"
            self._constant(f"{result}_pattern", [pattern.encode()], 8)
            self._constant(f"{result}_text", [text.encode()], 8)
            self._add("StringRegexReplace", [source, f"{result}_pattern", f"{result}_text"], [result])
            source = result
        return source


def _check_kind(content: dict[str, Any]) -> None:
    parts = [content["model"], content.get("normalizer") or {}, content.get("pre_tokenizer") or {}]
    kinds = tuple(part.get("type") for part in parts)
    if kinds != ("WordPiece", "BertNormalizer", "BertPreTokenizer"):
        raise InputError(f"the tokenizer is {kinds}; expected WordPiece with BERT's normalisation, as a graph needs it")


def _special_tokens(content: dict[str, Any]) -> list[str]:
    """The tokens that the tokenizer finds in the raw text, the longest first.

    Raises:
        InputError: one of them is not found letter by letter.
    """
    tokens = content.get("added_tokens") or []
    for token in tokens:
        if token.get("single_word") or token.get("lstrip") or token.get("rstrip") or token.get("normalized"):
            raise InputError(
                f"the tokenizer looks for {token['content']!r} in its own way; expected added tokens that are neither "
                "normalised, nor stripped, nor single words, as a graph needs them"
            )
    return sorted((token["content"] for token in tokens), key=len, reverse=True)


def _class(characters: Iterable[str]) -> str:
    """A character class of RE2, as ranges."""
    ranges: list[list[int]] = []
    for code in map(ord, characters):
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "[" + "".join(rf"\x{{{first:x}}}-\x{{{last:x}}}" for first, last in ranges) + "]"


def _quoted(text: str) -> str:
    """A text as a pattern of RE2."""
    return "".join(rf"\x{{{ord(character):x}}}" for character in text)
