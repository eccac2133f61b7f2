#!/bin/sh
# Makes the peers' environments below a folder: peers.sh FOLDER
set -eu
folder=${1:?usage: peers.sh FOLDER}
for pair in openevolve:openevolve==0.4.1 shinka:shinka-evolve==0.0.7; do
  home=$folder/${pair%%:*}
  "${PYTHON:-python3}" -m venv "$home"
  "$home/bin/python" -m pip install --quiet --disable-pip-version-check "${pair#*:}"
done
