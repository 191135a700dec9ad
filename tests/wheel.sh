#!/bin/sh
# The built wheel, installed into an empty environment, trains and predicts in an empty folder.
# sh tests/wheel.sh BIN PYTHON: folder of the development environment's programs, and what makes a
# new environment.
set -eu
bin=$(cd "$1" && pwd)
# Beside the development environment: hard links need its file system.
work=$(mktemp -d "$bin/../wheel.XXXXXX")
work=$(cd "$work" && pwd)
trap 'rm -rf "$work"' EXIT
"$bin/python" -m build --outdir "$work/dist" . > "$work/build.log" || { cat "$work/build.log"; exit 1; }
"$bin/twine" check --strict "$work"/dist/*
"$2" -m venv "$work/venv"
# PyTorch with its CUDA libraries takes 6 GB: linked instead of unpacked a second time. pip finds them
# installed and brings everything else that the wheel asks for.
packages() { "$1" -c "import sysconfig; print(sysconfig.get_path('purelib'))"; }
from=$(packages "$bin/python")
into=$(packages "$work/venv/bin/python")
version() { basename "$(dirname "$1")"; }
test "$(version "$from")" = "$(version "$into")" || from=/nowhere
for package in torch torchgen torchvision functorch triton nvidia cuda; do
    for path in "$from/$package" "$from/$package"[-_.]*; do
        test ! -e "$path" || cp -al "$path" "$into/" 2> /dev/null || cp -R "$path" "$into/"
    done
done
"$work/venv/bin/python" -m pip install --quiet "$work"/dist/*.whl
mkdir "$work/empty"
cd "$work/empty"
run="$work/venv/bin/higherhrnet"
"$run" configs list > list.txt
grep -q "coco/higherhrnet_w32_512" list.txt
"$run" train synthetic --output run TRAIN.END_EPOCH 1 TRAIN.WORKERS 0 \
    SYNTHETIC.TRAIN_IMAGES 32 SYNTHETIC.TEST_IMAGES 4
"$run" data synthetic drawn --images 4
"$run" predict drawn/images/synthetic --weights run/best.safetensors --raw --output predicted
"$run" demo --output demo
test -s run/best.safetensors -a -s predicted/predictions.json -a -s demo/demo_poses.jpg
echo "wheel: trained and predicted in an empty folder"
