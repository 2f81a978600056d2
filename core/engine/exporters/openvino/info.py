"""OpenVINO: its description."""

from core.engine.exporters.exporter_info import ExportRuntime, chat_in
from core.engine.exporters.graph_info import GraphInfo, text_continued_in

INFO = GraphInfo(
    id="openvino",
    rank=60,
    written="added",
    task_families=("language-model",),
    summary="openvino: a graph that keeps its keys and values itself, for OpenVINO, with weights in float32, float16 "
    "or int8. Each is run in OpenVINO before the job ends, and must predict as the artifact does.",
    ways_to_run=(chat_in("OpenVINO", "openvino", "tokenizers", "jinja2"),),
    example=text_continued_in(
        "OpenVINO",
        "openvino",
        opening='exact = {{"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}}\n'
        'model = openvino.Core().compile_model(file, "CPU", exact)\n'
        "known = {{name for each in model.inputs for name in each.get_names()}}\n"
        "request = model.create_infer_request()\n",
        step="    new = [int(request.infer(given)[0][0, -1].argmax())]\n",
    ),
    types=("F32", "F16", "INT8"),
    suffixes=(".xml", ".bin"),
    runtime=ExportRuntime("OpenVINO", module="openvino", extra="openvino"),
    most_timed_parameters=2 * 10**9,
    bounds={"F32": 1e-3, "F16": 1e-3, "INT8": 1e-2},
    weight_bytes={"F32": 4, "F16": 2, "INT8": 1},
    packages=("openvino", "nncf"),
)
