"""The pipeline's examples in other languages: their noise, and what JavaScript makes of a photo."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from skimage import data

import picme_rt
from picme_rt import cli
from picme_rt.noise import noise
from picme_rt.verbs.demo import face_hole

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples" / "pipeline"
MAIN = """
#include <cstdio>
#include "noise.h"
int main() {
    const Noise made = noise(18446744073709551613u, 5, 131);
    std::fwrite(made.uniforms.data(), 4, made.uniforms.size(), stdout);
    std::fwrite(made.normals.data(), 4, made.normals.size(), stdout);
}
"""


def test_the_noise_of_the_cpp_example_is_that_of_a_session(tmp_path):
    (tmp_path / "main.cpp").write_text(MAIN)
    compiler = os.environ.get("CXX", "c++")
    flags = ["-std=c++17", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-I", EXAMPLES]
    subprocess.run([compiler, *flags, "main.cpp", "-o", "main"], cwd=tmp_path, check=True)
    ran = subprocess.run([tmp_path / "main"], capture_output=True, check=True)
    wanted = noise(2**64 - 3, latent=131, k=5)
    made = np.frombuffer(ran.stdout, np.float32)
    assert (made == np.concatenate([wanted.uniforms, wanted.normals.ravel()])).all()


@pytest.mark.slow
def test_the_javascript_example_gives_a_sessions_pictures(tmp_path):
    for path in EXAMPLES.iterdir():
        shutil.copy(path, tmp_path)
    npm = ["npm", "install", "--no-audit", "--no-fund", "--silent"]
    subprocess.run(npm, cwd=tmp_path, check=True)
    engine = ROOT / "engines" / "cats128"
    assert cli.main(["export", str(engine), "--pipeline", "-o", str(tmp_path / "cats.onnx")]) == 0
    img = data.chelsea()
    hole = face_hole(img.shape[:2])
    Pillow.fromarray(img).save(tmp_path / "photo.ppm")
    Pillow.fromarray(hole.astype(np.uint8) * 255).save(tmp_path / "mask.pgm")
    node = ["node", "complete.mjs", "cats.onnx", "photo.ppm", "mask.pgm", "out", "3", "7"]
    ran = subprocess.run(node, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == [f"out/completed_{i}.ppm" for i in range(3)]
    with picme_rt.Session(engine, backend="onnxruntime") as session:
        wanted = session.complete(img, hole, k=3, seed=7).images
    for i in range(3):
        with Pillow.open(tmp_path / "out" / f"completed_{i}.ppm") as opened:
            made = np.asarray(opened)
        apart = np.abs(made.astype(int) - wanted[i])
        assert apart.max() <= 1
        assert (apart > 0).mean() < 1e-3
        assert (made[~hole] == img[~hole]).all()
