#!/bin/sh
# Makes a virtual environment with all that the makers of this folder and of weights/tiny import.
# usage: sh setup.sh FOLDER          (Python 3.11 or newer; some minutes and 6 GB)
#
# TransformerLens is pinned to 2.16.1: 4.0 removed HookedTransformer, whose numbers are stored here.
set -eu
here=$(dirname "$0")
python3 -m venv "$1"
"$1/bin/pip" install -q -r "$here/requirements.txt"
"$1/bin/pip" install -q --no-deps transformer-lens==2.16.1
