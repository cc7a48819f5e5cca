#!/usr/bin/env bash
# slim.sh ENVIRONMENT: takes out of the app's virtual environment what no run reads, and compiles what every run does.
set -euo pipefail
environment=$1
packages=$(echo "$environment"/lib/python3*/site-packages)

# the packages' own tests and their data
find "$packages" -type d -name tests -prune -exec rm -rf {} +
rm -rf "$packages"/{tornado/test,sqlalchemy/testing,matplotlib/mpl-data/sample_data}
find "$packages/statsmodels/datasets" -type f -not -name '*.py' -delete
# networks are run here, not converted or trained; and Python's part of onnxruntime holds all of it, C's is another copy
rm -rf "$packages"/onnxruntime/{tools,transformers,quantization,datasets} "$packages"/onnxruntime/capi/libonnxruntime.so*
# headers, sources of compiled modules, hints for type checkers, maps of JavaScript for debuggers
find "$packages" -type f -regex '.*\.\(h\|c\|pyx\|pxd\|pyi\|js\.map\)' -delete
# symbols for debuggers, where the library still loads without: strip breaks some that auditwheel has rearranged
loads() {
  { "$environment/bin/python" -c 'import ctypes, os, sys; ctypes.CDLL(sys.argv[1], os.RTLD_NOW)' "$1"; } 2>/dev/null
}
find "$packages" -name '*.so' -size +100k | while read -r library; do
  strip --strip-unneeded -o "$library.stripped" "$library"
  if loads "$library.stripped"; then
    mv "$library.stripped" "$library"
  else
    rm "$library.stripped"
  fi
done
# what installs
"$environment/bin/pip" uninstall --yes --quiet setuptools pip
find "$packages" -type d -name __pycache__ -prune -exec rm -rf {} +

# An image is read-only: what is not compiled now is compiled at every start, which takes seconds. Loading the app compiles
# what it needs, about half of everything, and shows that nothing missing was taken out.
"$environment/bin/python" - <<'END'
import importlib
import pkgutil

import bids_app

for room in pkgutil.walk_packages(bids_app.__path__, "bids_app."):
    importlib.import_module(room.name)
for late in ("distributed", "matplotlib.backends.backend_agg", "nilearn.plotting"):
    importlib.import_module(late)
END
