"""ONNX: its description."""

from core.engine.exporters.exporter_info import ExportRuntime, RuntimeExample
from core.engine.exporters.graph_info import GraphInfo

INFO = GraphInfo(
    id="onnx",
    rank=40,
    written="beside",
    task_families=("image-classification",),
    summary="onnx: a graph with its keys and values as inputs and outputs, for ONNX Runtime. It is run there before "
    "the job ends, and must predict as the artifact does. Classifiers have one without being asked.",
    ways_to_run=(
        (
            "A chat in whichever engine is installed: each line typed is answered, Ctrl-D ends it.",
            "pip install 'secateur[run]' onnxruntime\nsecateur run {file}",
        ),
    ),
    example=RuntimeExample(
        runtime="ONNX Runtime",
        about="Continues a text with the likeliest words, without PyTorch",
        packages=("onnxruntime", "tokenizers", "numpy"),
        script="from pathlib import Path\n\n"
        "import numpy\nimport onnxruntime\nfrom tokenizers import Tokenizer\n\n"
        'file = Path("{file}")\n'
        'tokenizer = Tokenizer.from_file(str(file.with_name("tokenizer.json")))\n'
        "session = onnxruntime.InferenceSession(file)\n"
        "past = {{\n"
        "    each.name: numpy.zeros((1, each.shape[1], 0, each.shape[3]), numpy.float32)\n"
        '    for each in session.get_inputs()\n    if each.name.startswith("past_key_values.")\n'
        "}}\n"
        'ids = tokenizer.encode("{prompt}").ids\n'
        "new = list(ids)\n"
        "for _ in range(24):\n"
        "    places = numpy.arange(len(ids) - len(new), len(ids))[None]\n"
        "    mask = numpy.ones((1, len(ids)), numpy.int64)\n"
        '    given = {{"input_ids": numpy.array([new]), "attention_mask": mask, "position_ids": places}}\n'
        "    known = {{each.name for each in session.get_inputs()}}\n"
        "    given = {{name: value for name, value in given.items() if name in known}}\n"
        "    logits, *present = session.run(None, given | past)\n"
        "    past = dict(zip(past, present, strict=True))\n"
        "    new = [int(logits[0, -1].argmax())]\n"
        "    ids += new\n"
        "print(tokenizer.decode(ids))",
    ),
    types=("F32",),
    suffixes=(".onnx", ".onnx.data"),
    runtime=ExportRuntime("onnxruntime", module="onnxruntime"),
    most_timed_parameters=2 * 10**9,
    bounds={"F32": 1e-3},
    weight_bytes={"F32": 4},
    packages=("onnx", "onnxscript", "onnxruntime"),
    extra="worker",
)
