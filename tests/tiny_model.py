"""A model small enough to be made in a test, and its right answer in plain numpy.

Each token's vector is its row of a table plus the mean of all rows of its text, so that a wrong mask, a
wrong limit or a wrong padding changes every vector. The tokenizer's file carries cutting and padding of its
own, as published ones do.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers, processors

WIDTH, LIMIT = 6, 12
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "query:", *(f"w{i}" for i in range(40))]
TABLE = np.random.default_rng(7).standard_normal((len(WORDS), WIDTH)).astype(np.float32)


def build(folder: Path, *, graph: str = "onnx/model.onnx", pooling: str = "mean", **files: Any) -> Path:
    """Write the model; `files` overrides the content of a JSON file by its stem, None leaves it out."""
    config = {"model_type": "bert", "hidden_size": WIDTH, "max_position_embeddings": 512, "pad_token_id": 0}
    types = ("Transformer", "Pooling", "Normalize")
    contents: dict[str, Any] = {
        "config": config,
        "modules": [
            {"idx": i, "path": f"{i}_{name}" if i else "", "type": f"sentence_transformers.models.{name}"}
            for i, name in enumerate(types)
        ],
        "1_Pooling/config": {"word_embedding_dimension": WIDTH, f"pooling_mode_{pooling}": True},
        "sentence_bert_config": {"max_seq_length": LIMIT, "do_lower_case": False},
        "config_sentence_transformers": {"prompts": {"query": "query: "}},
        "tokenizer_config": {"pad_token": "[PAD]", "model_max_length": 512},
    }
    for name, content in (contents | files).items():
        path = folder / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is not None:
            path.write_text(json.dumps(content))
    _tokenizer().save(str(folder / "tokenizer.json"))
    (folder / graph).parent.mkdir(parents=True, exist_ok=True)
    onnx.save(_graph(), folder / graph)
    return folder


def expected(text: str, *, pooling: str = "mean", normalized: bool = True) -> np.ndarray:
    """Give the one right vector of a text."""
    words = ["[CLS]", *text.split()[: LIMIT - 2], "[SEP]"]
    rows = TABLE[[WORDS.index(word) if word in WORDS else 1 for word in words]]
    rows = rows + rows.mean(axis=0)
    pooled = {"cls": rows[0], "lasttoken": rows[-1], "max": rows.max(axis=0), "mean": rows.mean(axis=0)}
    vector = pooled[pooling]
    return vector / np.linalg.norm(vector) if normalized else vector


def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=5)
    return tokenizer


def _graph() -> onnx.ModelProto:
    ids, mask = (
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"])
        for name in ("input_ids", "attention_mask")
    )
    out = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["batch", "length", WIDTH])
    axes = numpy_helper.from_array(np.array([1], dtype=np.int64), "axes")
    last = numpy_helper.from_array(np.array([2], dtype=np.int64), "last")
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Cast", ["attention_mask"], ["flat"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["flat", "last"], ["weights"]),
        helper.make_node("Mul", ["rows", "weights"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "axes"], ["sum"], keepdims=1),
        helper.make_node("ReduceSum", ["weights", "axes"], ["count"], keepdims=1),
        helper.make_node("Div", ["sum", "count"], ["mean"]),
        helper.make_node("Add", ["rows", "mean"], ["last_hidden_state"]),
    ]
    table = numpy_helper.from_array(TABLE, "table")
    graph = helper.make_graph(nodes, "tiny", [ids, mask], [out], [table, axes, last])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
