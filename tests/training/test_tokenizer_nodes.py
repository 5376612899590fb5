"""The tokenizer as nodes of a graph gives the ids of the tokenizer itself, for every character."""

from __future__ import annotations

import sys

import numpy as np
import onnx
import onnxruntime
import onnxruntime_extensions
import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from routelearn.routers.errors import InputError
from routelearn.training.export.tokenizer_nodes import OPERATORS, TokenizerNodes

PIECES = [
    "a",
    "b",
    "##a",
    "##b",
    "ab",
    "##k",
    "un",
    "[",
    "]",
    "?",
    "家",
    "て",
    "##す",
    "е",
    "##щ",
    "##е",
    "ᄌ",
    "##ᅵ",
    "λ",
]


def tokenizer(**normaliser: bool) -> Tokenizer:
    words = ["[PAD]", "[UNK]", *PIECES]
    made = Tokenizer(
        models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]", max_input_chars_per_word=20)
    )
    made.normalizer = normalizers.BertNormalizer(**normaliser)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens(["[UNK]", "[PAD]"])
    return made


def ids_by_graph(made: Tokenizer, texts: list[str]) -> list[list[int]]:
    nodes = TokenizerNodes(onnx.helper, made.to_str().encode(), "text")
    graph = onnx.helper.make_graph(
        nodes.nodes,
        "tokenizer",
        [onnx.helper.make_tensor_value_info("text", onnx.TensorProto.STRING, [1])],
        [onnx.helper.make_tensor_value_info(nodes.ids, onnx.TensorProto.INT64, None)],
        nodes.constants,
    )
    sets = [onnx.helper.make_opsetid("", 18), *(onnx.helper.make_opsetid(*one) for one in OPERATORS.items())]
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(onnxruntime_extensions.get_library_path())
    content = onnx.helper.make_model(graph, opset_imports=sets, ir_version=9).SerializeToString()
    session = onnxruntime.InferenceSession(content, options)
    return [session.run(None, {"text": np.array([text], object)})[0].tolist() for text in texts]


@pytest.mark.slow
@pytest.mark.parametrize(
    "normaliser",
    [
        {"lowercase": True},
        {"lowercase": False, "strip_accents": False, "handle_chinese_chars": False},
        {"lowercase": True, "strip_accents": False},
    ],
)
def test_every_character_is_tokenized_as_the_tokenizer_does(normaliser: dict[str, bool]) -> None:
    made = tokenizer(**normaliser)
    codes = [code for code in range(1, sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    # Inside a word, beside the words of a script, and doubled.
    texts = [
        " ".join(f"a{chr(code)}b {chr(code)}{chr(code)}" for code in codes[start : start + 4000])
        for start in range(0, len(codes), 4000)
    ]
    assert ids_by_graph(made, texts) == [made.encode(text).ids for text in texts]


def test_words_texts_and_special_tokens_are_tokenized_as_the_tokenizer_does() -> None:
    made = tokenizer(lowercase=True)
    texts = [
        "",
        " \n\t",
        "ещё ЕЩЕ ещя",  # the last begins like a known word
        "家です？",
        "집에서 지",
        "[UNK][PAD]ab [ UNK ] [unk] [\u200bUNK] [UN[UNK]K]",
        "a" * 20 + " " + "a" * 21 + " " + "é" * 21,
        "\uf8ffa\uf8feb \x1f a\x1fb",
        "e\u0301 \u1e9b\u0323 \ud55c \u037e \uf900",
    ]
    assert ids_by_graph(made, texts) == [made.encode(text).ids for text in texts]


def test_a_tokenizer_that_no_graph_copies_is_refused() -> None:
    made = tokenizer(lowercase=True)
    made.add_tokens([AddedToken("abba", single_word=True)])
    with pytest.raises(InputError, match="looks for 'abba' in its own way"):
        ids_by_graph(made, [])
    made = tokenizer(lowercase=True)
    made.normalizer = normalizers.NFD()
    with pytest.raises(InputError, match="expected WordPiece with BERT's normalisation"):
        ids_by_graph(made, [])
