"""OpenVINO: its description."""

from core.engine.exporters.exporter_info import ExportRuntime, RuntimeExample
from core.engine.exporters.graph_info import GraphInfo

INFO = GraphInfo(
    id="openvino",
    rank=60,
    written="added",
    task_families=("language-model",),
    summary="openvino: a graph that keeps its keys and values itself, for OpenVINO, with weights in float32, float16 "
    "or int8. Each is run in OpenVINO before the job ends, and must predict as the artifact does.",
    ways_to_run=(
        (
            "A chat in whichever engine is installed: each line typed is answered, Ctrl-D ends it.",
            "pip install 'secateur[run]' openvino\nsecateur run {file}",
        ),
    ),
    example=RuntimeExample(
        runtime="OpenVINO",
        about="Continues a text with the likeliest words, without PyTorch",
        packages=("openvino", "tokenizers", "numpy"),
        script="from pathlib import Path\n\n"
        "import numpy\nimport openvino\nfrom tokenizers import Tokenizer\n\n"
        'file = Path("{file}")\n'
        'tokenizer = Tokenizer.from_file(str(file.with_name("tokenizer.json")))\n'
        'exact = {{"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}}\n'
        'model = openvino.Core().compile_model(file, "CPU", exact)\n'
        "known = {{name for each in model.inputs for name in each.get_names()}}\n"
        "request = model.create_infer_request()\n"
        'ids = tokenizer.encode("{prompt}").ids\n'
        "new = list(ids)\n"
        "for _ in range(24):\n"
        "    places = numpy.arange(len(ids) - len(new), len(ids))[None]\n"
        "    mask = numpy.ones((1, len(ids)), numpy.int64)\n"
        '    given = {{"input_ids": numpy.array([new]), "attention_mask": mask, "position_ids": places}}\n'
        '    given["beam_idx"] = numpy.zeros(1, numpy.int32)\n'
        "    given = {{name: value for name, value in given.items() if name in known}}\n"
        "    new = [int(request.infer(given)[0][0, -1].argmax())]\n"
        "    ids += new\n"
        "print(tokenizer.decode(ids))",
    ),
    types=("F32", "F16", "INT8"),
    suffixes=(".xml", ".bin"),
    runtime=ExportRuntime("OpenVINO", module="openvino"),
    most_timed_parameters=2 * 10**9,
    bounds={"F32": 1e-3, "F16": 1e-3, "INT8": 1e-2},
    weight_bytes={"F32": 4, "F16": 2, "INT8": 1},
    packages=("openvino", "nncf"),
    extra="openvino",
)
