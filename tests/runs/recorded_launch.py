"""Run launch/xm_launch.py under XManager itself with a Vertex AI that only notes what it is asked for, as JSON."""

import json
import runpy
import sys
from pathlib import Path

from absl import app
from xmanager import xm
from xmanager.cloud import auth, vertex


class Recorder:
    """In place of vertex.Client."""

    def __init__(self):
        self.asked = []

    def launch(self, name, jobs):
        for job in jobs:
            arguments = xm.merge_args(job.executable.args, job.args).to_list(str)
            machine = vertex.get_machine_spec(job)["machine_type"]
            self.asked.append({"image": job.executable.image_path, "machine": machine, "arguments": arguments})
        return name

    async def wait_for_job(self, name):
        """It is over at once."""


if __name__ == "__main__":
    script = Path(__file__).parents[2] / "launch/xm_launch.py"
    auth.get_project_name = lambda: "project"
    recorder = Recorder()
    vertex.set_default_client(recorder)
    launched = runpy.run_path(str(script))

    def main(argv):
        launched["main"](argv)
        print(json.dumps(recorder.asked), file=sys.stderr)

    app.run(main, argv=[str(script), f"--xm_launch_script={script}", *sys.argv[1:]])
