#!/usr/bin/env bash
# Asks the bundled model from Python and checks what comes.
#   PHI4FLASH_PYTHON    the interpreter (python3)
# and what c_library.sh reads. Exit code 77: no Python here.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../c_library.sh"
need "${PHI4FLASH_PYTHON:-python3}" python3
compile_c_library
PHI4FLASH_C_LIBRARY=$library PYTHONDONTWRITEBYTECODE=1 "${PHI4FLASH_PYTHON:-python3}" "$here/check.py" "$model"
