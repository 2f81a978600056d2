"""ONNX: its description."""

from core.engine.exporters.exporter_info import ExportRuntime, chat_in
from core.engine.exporters.graph_info import GraphInfo, text_continued_in

INFO = GraphInfo(
    id="onnx",
    rank=40,
    written="beside",
    task_families=("image-classification",),
    summary="onnx: a graph with its keys and values as inputs and outputs, for ONNX Runtime. It is run there before "
    "the job ends, and must predict as the artifact does. Classifiers have one without being asked.",
    ways_to_run=(chat_in("ONNX Runtime", "onnxruntime", "tokenizers", "jinja2"),),
    example=text_continued_in(
        "ONNX Runtime",
        "onnxruntime",
        opening="session = onnxruntime.InferenceSession(file)\n"
        "known = {{each.name for each in session.get_inputs()}}\n"
        "past = {{\n"
        "    each.name: numpy.zeros((1, each.shape[1], 0, each.shape[3]), numpy.float32)\n"
        '    for each in session.get_inputs()\n    if each.name.startswith("past_key_values.")\n'
        "}}\n",
        step="    logits, *present = session.run(None, given | past)\n"
        "    past = dict(zip(past, present, strict=True))\n"
        "    new = [int(logits[0, -1].argmax())]\n",
    ),
    types=("F32",),
    suffixes=(".onnx", ".onnx.data"),
    runtime=ExportRuntime("onnxruntime", module="onnxruntime", extra="worker"),
    most_timed_parameters=2 * 10**9,
    bounds={"F32": 1e-3},
    weight_bytes={"F32": 4},
    packages=("onnx", "onnxscript", "onnxruntime"),
)
