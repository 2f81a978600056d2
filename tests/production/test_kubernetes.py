"""The manifests of deploy/kubernetes: valid, safe, and of one piece with images, settings and docker-compose.yml."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from core.settings import Settings
from tests.production.files import ROOT
from tests.production.manifests import BASE, EXAMPLE, Manifest, containers, of_kind, pods, rendered, settings

OWN_SCHEMAS = {"ScaledObject": json.loads((Path(__file__).parent / "schemas" / "scaledobject.json").read_text())}
VERSIONS = ("1.30", kubernetes_validate.latest_version())
"""The oldest that has what is used, and the newest whose schemas are there."""
COMPONENT, QUEUE = "app.kubernetes.io/component", "secateur.io/queue"
SECRET_KEYS = {
    "PGPASSWORD",
    "SECATEUR_BROKER_PASSWORD",
    "SECATEUR_SECRET_KEY",
    "SECATEUR_STORE_ACCESS_KEY",
    "SECATEUR_STORE_SECRET_KEY",
    "SECATEUR_HUB_TOKEN",
}
both = pytest.mark.parametrize("folder", [BASE, EXAMPLE])


def check(resource: Manifest) -> None:
    """Raises what a schema says against it."""
    if (own := OWN_SCHEMAS.get(resource["kind"])) is not None:
        jsonschema.validate(resource, own)
        return
    for version in VERSIONS:
        kubernetes_validate.validate(resource, version, strict=True)


@both
def test_every_resource_is_valid_by_the_published_schemas(folder: str) -> None:
    for resource in rendered(folder):
        check(resource)


@both
def test_nothing_is_referred_to_that_is_not_there(folder: str) -> None:
    accounts, maps = of_kind(folder, "ServiceAccount"), of_kind(folder, "ConfigMap")
    for name, pod in pods(folder):
        spec = pod["spec"]
        assert spec["serviceAccountName"] in accounts, name
        volumes = {volume["name"] for volume in spec["volumes"]}
        for each in (*spec.get("initContainers", []), *spec["containers"]):
            assert {mount["name"] for mount in each["volumeMounts"]} <= volumes, name
            assert all(source["configMapRef"]["name"] in maps for source in each.get("envFrom", [])), name
            for variable in each["env"]:
                if "valueFrom" in variable:
                    reference = variable["valueFrom"]["secretKeyRef"]
                    assert reference["name"] == "secateur" and reference["key"] in SECRET_KEYS, name
            ports = {port["name"] for port in each.get("ports", [])}
            probed = {each[key]["httpGet"]["port"] for key in each if key.endswith("Probe") and "httpGet" in each[key]}
            assert probed <= ports, name
    for name, service in of_kind(folder, "Service").items():
        [selected] = matching(folder, service["spec"]["selector"])
        ports = {port["name"] for each in selected["spec"]["containers"] for port in each["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports, name
    for name, scaled in of_kind(folder, "ScaledObject").items():
        assert scaled["spec"]["scaleTargetRef"]["name"] in of_kind(folder, "Deployment"), name
    for name, budget in of_kind(folder, "PodDisruptionBudget").items():
        assert len(list(matching(folder, budget["spec"]["selector"]["matchLabels"]))) == 1, name
    for ingress in of_kind(folder, "Ingress").values():
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                backend = path["backend"]["service"]
                served = of_kind(folder, "Service")[backend["name"]]["spec"]["ports"]
                assert backend["port"]["name"] in {port["name"] for port in served}


def matching(folder: str, labels: dict[str, str]) -> Iterator[Manifest]:
    return (pod for _, pod in pods(folder) if labels.items() <= pod["metadata"]["labels"].items())


@both
def test_pods_can_do_as_little_as_compose_s_containers(folder: str) -> None:
    for name, pod in pods(folder):
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False and spec["enableServiceLinks"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), name
        for each in (*spec.get("initContainers", []), *spec["containers"]):
            assert each["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert each["resources"]["limits"]["memory"] and each["resources"]["requests"]["cpu"], name
    for name, own in containers(folder).items():
        context, (user, _, group) = own.pod["spec"]["securityContext"], own.image.user.partition(":")
        assert [context[key] for key in ("runAsUser", "fsGroup")] == [int(user), int(group)], name
    for account in of_kind(folder, "ServiceAccount").values():
        assert account["automountServiceAccountToken"] is False
    [namespace] = of_kind(folder, "Namespace").values()
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@both
def test_no_secret_is_in_the_files(folder: str) -> None:
    assert not of_kind(folder, "Secret")
    assert not SECRET_KEYS & settings(folder).keys()
    assert not re.search(r"://[^/@\s]+:[^/@\s]+@", json.dumps(rendered(folder))), "a password in a URL"
    for each in containers(folder).values():
        assert not [one["name"] for one in each.said["env"] if one["name"] in SECRET_KEYS and "value" in one]
    command = re.search(
        r"create secret generic secateur(.*?)```", (ROOT / "docs" / "kubernetes.md").read_text(), re.DOTALL
    )
    assert command, "the page does not say how the Secret is made"
    assert {key for key in SECRET_KEYS if key in command[1]} == SECRET_KEYS


@both
def test_every_variable_is_known_and_means_something(folder: str) -> None:
    known = {f"SECATEUR_{name.upper()}" for name in Settings.model_fields}
    assert settings(folder).keys() <= known
    for name, each in containers(folder).items():
        seen = each.environment(settings(folder), dict.fromkeys(SECRET_KEYS, "a secret"))
        assert {key for key in seen if key.startswith("SECATEUR_")} <= known, name
        Settings.model_validate({key.removeprefix("SECATEUR_").lower(): seen[key] for key in seen if key in known})


@both
def test_everything_waits_for_the_schema_but_what_makes_it(folder: str) -> None:
    waiting = containers(folder, init=True)
    assert waiting.keys() == containers(folder).keys() - {"prepare"}
    for name, each in waiting.items():
        assert each.command == ["python", "-m", "worker.prepare", "--wait"]
        assert each.said["image"] == containers(folder)[name].said["image"], "it would wait for another schema"


@both
def test_workers_are_scaled_by_a_metric_there_is_and_none_at_work_is_taken_away(
    folder: str, api_client: TestClient
) -> None:
    deployments, scaled = of_kind(folder, "Deployment"), of_kind(folder, "ScaledObject")
    assert scaled.keys() == {name for name in deployments if name.startswith("worker-")}
    told = {family.name for family in text_string_to_metric_families(api_client.get("/metrics").text)}
    [namespace] = of_kind(folder, "Namespace")
    for name, each in scaled.items():
        spec = each["spec"]
        assert spec["minReplicaCount"] == 0 and "replicas" not in deployments[name]["spec"]
        behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        assert behavior["scaleDown"]["selectPolicy"] == "Disabled"
        [trigger] = [trigger["metadata"] for trigger in spec["triggers"]]
        [(metric, queue)] = re.findall(r'^(\w+){queue="(\w+)"}$', trigger["valueLocation"])
        assert metric in told and queue == name.removeprefix("worker-")
        [(host, port, path)] = re.findall(r"^http://([^:]+):(\d+)(/.*)$", trigger["url"])
        assert host == f"api-metrics.{namespace}.svc" and path == "/metrics"
        service = of_kind(folder, "Service")["api-metrics"]["spec"]
        assert int(port) == service["ports"][0]["port"] and service["publishNotReadyAddresses"] is True
        assert port == settings(folder)["SECATEUR_METRICS_PORT"] and trigger["format"] == "prometheus"


@both
def test_nobody_reaches_or_is_reached_but_as_is_said(folder: str) -> None:
    policies = of_kind(folder, "NetworkPolicy")
    nobody = policies["nobody"]["spec"]
    assert nobody["podSelector"] == {} and set(nobody["policyTypes"]) == {"Ingress", "Egress"}
    assert "ingress" not in nobody and "egress" not in nobody
    components = {pod["metadata"]["labels"][COMPONENT] for _, pod in pods(folder)}
    for name, policy in policies.items():
        chosen = policy["spec"]["podSelector"].get("matchLabels", {}).get(COMPONENT)
        assert chosen is None or chosen in components, name
        for rule in policy["spec"].get("egress", []):
            for block in (peer["ipBlock"] for peer in rule["to"] if "ipBlock" in peer):
                assert block["cidr"] != "0.0.0.0/0" or "169.254.0.0/16" in block["except"], f"{name}: the metadata"
            assert rule["ports"], f"{name}: any port"
    reached = {
        policy["spec"]["podSelector"]["matchLabels"][COMPONENT]
        for policy in policies.values()
        if policy["spec"].get("ingress")
    }
    assert reached == {"api", "redis"}, "nobody needs to reach a worker"
    assert "ingress" not in policies["worker"]["spec"]
    outside = {
        name: {port["port"] for rule in policy["spec"].get("egress", []) for port in rule["ports"]}
        for name, policy in policies.items()
    }
    assert outside["prepare"] == {5432, 443} and outside["redis"] == set()
    assert outside["api"] == outside["dispatcher"] == outside["worker"] == {5432, "redis", 443}
    for name, ports in (("api", {"http", "metrics"}), ("redis", {"redis"})):
        assert {port["port"] for rule in policies[name]["spec"]["ingress"] for port in rule["ports"]} == ports
