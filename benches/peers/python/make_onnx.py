"""make_onnx.py FOLDER: the ONNX Attention models that the rten peer loads."""

import sys

from onnx import TensorProto, helper, save

for name, causal in (("causal", 1), ("full", 0)):
    q = helper.make_tensor_value_info("q", TensorProto.FLOAT, ["b", "hq", "sq", "d"])
    k, v = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["b", "hkv", "skv", "d"]) for n in "kv")
    o = helper.make_tensor_value_info("o", TensorProto.FLOAT, ["b", "hq", "sq", "d"])
    node = helper.make_node("Attention", ["q", "k", "v"], ["o"], is_causal=causal)
    model = helper.make_model(
        helper.make_graph([node], "g", [q, k, v], [o]), ir_version=10, opset_imports=[helper.make_opsetid("", 23)]
    )
    save(model, f"{sys.argv[1]}/attention-{name}.onnx")
