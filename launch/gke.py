"""A run on one TPU or GPU host of Google Kubernetes Engine: prints a Job for kubectl.

    python launch/gke.py --image=IMAGE --accelerator=v5e --chips=8 --claim=runs --name=prm-303 -- \\
        --config=configs/prm_math.py --config.seed=303 | kubectl apply -f -

What stands behind `--` is for spare_jax.main, which writes to /runs/NAME on the disk behind `claim`, a
PersistentVolumeClaim; compiled programs are kept there, too. IMAGE is launch/Dockerfile's. A run goes on where it was
interrupted, so a preempted pod is simply replaced, and `--spot` nodes will do; a mistake in the settings ends the Job.
"""

import argparse
import sys
from typing import Any

import yaml

# By accelerator: the label of its nodes, and the topology of a slice of one host by its chips
# (cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus).
TPUS = {
    "v4": ("tpu-v4-podslice", {4: "2x2x1"}),
    "v5e": ("tpu-v5-lite-podslice", {1: "1x1", 4: "2x2", 8: "2x4"}),
    "v5p": ("tpu-v5p-slice", {4: "2x2x1"}),
    "v6e": ("tpu-v6e-slice", {1: "1x1", 4: "2x2", 8: "2x4"}),
}
GPUS = {
    "l4": "nvidia-l4",
    "a100": "nvidia-tesla-a100",
    "a100-80gb": "nvidia-a100-80gb",
    "h100": "nvidia-h100-80gb",
    "h200": "nvidia-h200-141gb",
}


def job(
    *,
    name: str,
    image: str,
    accelerator: str,
    chips: int,
    claim: str,
    arguments: list[str],
    spot: bool = False,
    retries: int = 3,
) -> dict[str, Any]:
    """A batch/v1 Job as the object that its YAML says.

    Raises:
      ValueError: there is no such accelerator, no single host has so many chips of it, or `arguments` name no config,
        or a work directory.
    """
    if not any(argument.startswith("--config=") for argument in arguments):
        raise ValueError("no --config among the arguments of the run: put them behind --")
    if any(argument.startswith("--workdir") for argument in arguments):
        raise ValueError("--workdir is /runs/NAME: set --name in its place")
    selector, resource = _node(accelerator, chips)
    if spot:
        selector["cloud.google.com/gke-spot"] = "true"
    container = {
        "name": "run",
        "image": image,
        "args": [*arguments, f"--workdir=/runs/{name}"],
        "env": [{"name": "JAX_COMPILATION_CACHE_DIR", "value": "/runs/compiled"}],
        "resources": {"requests": {resource: str(chips)}, "limits": {resource: str(chips)}},
        "volumeMounts": [{"name": "runs", "mountPath": "/runs"}, {"name": "shm", "mountPath": "/dev/shm"}],
    }
    pod = {
        "restartPolicy": "Never",
        "nodeSelector": selector,
        "tolerations": [{"key": resource, "operator": "Exists", "effect": "NoSchedule"}],
        "containers": [container],
        "volumes": [
            {"name": "runs", "persistentVolumeClaim": {"claimName": claim}},
            {"name": "shm", "emptyDir": {"medium": "Memory"}},  # NCCL wants more than the 64 MB that a pod has
        ],
    }
    # A disruption is no failure; an exit with 1 is a mistake of settings or code, which no retry would mend.
    rules = [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": {"containerName": "run", "operator": "In", "values": [1]}},
    ]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"backoffLimit": retries, "podFailurePolicy": {"rules": rules}, "template": {"spec": pod}},
    }


def _node(accelerator: str, chips: int) -> tuple[dict[str, str], str]:
    """Labels of a node that has the chips, and how Kubernetes calls these."""
    if accelerator in GPUS:
        if chips not in (1, 2, 4, 8):
            raise ValueError(f"no host has {chips} GPUs of type {accelerator}: use 1, 2, 4 or 8")
        return {"cloud.google.com/gke-accelerator": GPUS[accelerator]}, "nvidia.com/gpu"
    if accelerator not in TPUS:
        raise ValueError(f"accelerator {accelerator!r} is unknown: choose among {', '.join([*TPUS, *GPUS])}")
    label, topologies = TPUS[accelerator]
    if chips not in topologies:
        sizes = ", ".join(map(str, topologies))
        raise ValueError(f"no host has {chips} chips of {accelerator}: use {sizes} (a run is one process on one host)")
    labels = {"cloud.google.com/gke-tpu-accelerator": label, "cloud.google.com/gke-tpu-topology": topologies[chips]}
    return labels, "google.com/tpu"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", required=True, help="of the Job and of its work directory")
    parser.add_argument("--image", required=True, help="made from launch/Dockerfile")
    parser.add_argument("--accelerator", required=True, help=", ".join([*TPUS, *GPUS]))
    parser.add_argument("--chips", type=int, required=True, help="of one host")
    parser.add_argument("--claim", required=True, help="the PersistentVolumeClaim that work directories lie on")
    parser.add_argument("--spot", action="store_true", help="nodes that can be taken away")
    parser.add_argument("--retries", type=int, default=3, help="of failures that are neither preemptions nor mistakes")
    parser.add_argument("arguments", nargs="+", help="behind --, those of spare_jax.main")
    try:
        made = job(**vars(parser.parse_args()))
    except ValueError as error:
        sys.exit(f"error: {error}")
    yaml.safe_dump(made, sys.stdout, sort_keys=False)


if __name__ == "__main__":
    main()
