import subprocess
import sys

ABSENT = ("av", "torchvision", "datasets", "tyro", "torchao", "skimage", "scipy", "matplotlib")


def test_work_on_images_needs_none_of_what_others_need():
    blocked = f"import sys\nfor name in {ABSENT}: sys.modules[name] = None\n"
    code = blocked + "import swd_distill.data.generate, swd_distill.data.encode, swd_distill.run"
    subprocess.run([sys.executable, "-c", code], check=True)
