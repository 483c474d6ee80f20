"""What the launch scripts ask a cluster for."""

import importlib.util
import json
import math
import os
import runpy
import subprocess
import sys
from types import SimpleNamespace

import pytest
import yaml
from tests_config import ROOT

GKE = ROOT / "launch/gke.py"
gke = SimpleNamespace(**runpy.run_path(str(GKE)))
RUN = {"name": "prm-303", "image": "IMAGE", "claim": "disk", "arguments": ["--config=configs/prm_math.py:task=gsm8k"]}


def printed(*arguments):
    given = ["--name=prm-303", "--image=IMAGE", "--claim=disk", *arguments]
    given += ["--", "--config=configs/prm_math.py", "--config.seed=3"]
    return subprocess.run([sys.executable, GKE, *given], capture_output=True, text=True, check=False)


def test_a_job_is_printed_for_kubectl():
    done = printed("--accelerator=v5e", "--chips=8", "--spot")
    assert done.returncode == 0 and not done.stderr
    job = yaml.safe_load(done.stdout)
    assert (job["apiVersion"], job["kind"], job["metadata"]["name"]) == ("batch/v1", "Job", "prm-303")
    pod = job["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "2x4",
        "cloud.google.com/gke-spot": "true",
    }
    [container] = pod["containers"]
    assert container["args"] == ["--config=configs/prm_math.py", "--config.seed=3", "--workdir=/runs/prm-303"]
    assert container["resources"] == {"requests": {"google.com/tpu": "8"}, "limits": {"google.com/tpu": "8"}}
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert set(mounted) == set(volumes) and mounted["runs"] == "/runs"
    assert volumes["runs"]["persistentVolumeClaim"] == {"claimName": "disk"}


def test_a_preempted_pod_is_replaced_and_a_mistake_is_not_tried_again():
    spec = gke.job(**RUN, accelerator="h100", chips=8)["spec"]
    assert spec["template"]["spec"]["restartPolicy"] == "Never"  # podFailurePolicy asks for it
    rules = {rule["action"]: rule for rule in spec["podFailurePolicy"]["rules"]}
    assert rules["Ignore"]["onPodConditions"][0]["type"] == "DisruptionTarget"
    assert rules["FailJob"]["onExitCodes"]["containerName"] == spec["template"]["spec"]["containers"][0]["name"]
    command = [sys.executable, "-m", "spare_jax.main", "--config=configs/prm_math.py:nonsense"]
    mistaken = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert mistaken.returncode in rules["FailJob"]["onExitCodes"]["values"]


@pytest.mark.parametrize("accelerator", [*gke.TPUS, *gke.GPUS])
def test_a_host_of_every_accelerator(accelerator):
    chips = 4
    pod = gke.job(**RUN, accelerator=accelerator, chips=chips)["spec"]["template"]["spec"]
    [(resource, number)] = pod["containers"][0]["resources"]["limits"].items()
    assert number == str(chips)
    assert [toleration["key"] for toleration in pod["tolerations"]] == [resource]
    topology = pod["nodeSelector"].get("cloud.google.com/gke-tpu-topology")
    assert (topology is not None) == (resource == "google.com/tpu")
    if topology:
        assert math.prod(map(int, topology.split("x"))) == chips


@pytest.mark.parametrize(
    ("changed", "remedy"),
    [
        ({"accelerator": "v5e", "chips": 16}, "use 1, 4, 8"),
        ({"accelerator": "h100", "chips": 3}, "use 1, 2, 4 or 8"),
        ({"accelerator": "v9", "chips": 8}, "choose among v4, v5e"),
        ({"arguments": []}, "behind --"),
        ({"arguments": ["--config=x.py", "--workdir=/tmp"]}, "set --name"),
    ],
)
def test_a_mistake_has_a_remedy(changed, remedy):
    with pytest.raises(ValueError, match=remedy):
        gke.job(**{**RUN, "accelerator": "v5e", "chips": 8, **changed})


def test_a_mistake_is_one_line():
    done = printed("--accelerator=v5e", "--chips=16")
    assert done.returncode == 1 and not done.stdout
    assert done.stderr.startswith("error: no host has 16 chips of v5e") and done.stderr.count("\n") == 1


@pytest.mark.skipif(not importlib.util.find_spec("xmanager"), reason="pip install xmanager")
def test_xmanager_asks_vertex_for_a_run_of_each_seed(tmp_path):
    command = [sys.executable, ROOT / "tests/runs/recorded_launch.py", "--name=prm", "--image=gcr.io/project/image"]
    command += ["--accelerator=l4", "--gpus=2", "--seeds=303,404", "--config=configs/prm_math.py"]
    command += ["--setting=data.train_problems=480", "--setting=stages=('evaluate','report')"]
    env = os.environ | {"GOOGLE_CLOUD_BUCKET_NAME": "bucket", "HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    settings = ["--config.data.train_problems=480", "--config.stages=('evaluate','report')"]
    assert json.loads(done.stderr.splitlines()[-1]) == [
        {
            "image": "gcr.io/project/image",
            "machine": "g2-standard-24",
            "arguments": [
                "--config=configs/prm_math.py", *settings, f"--config.seed={seed}", f"--workdir=/gcs/bucket/prm/{seed}",
            ],
        }
        for seed in (303, 404)
    ]  # fmt: skip
