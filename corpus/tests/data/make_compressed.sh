#!/bin/sh
# Writes text.gz and text.zst with gzip 1.12 and zstd 1.5.4: two members each; text.zst begins with a frame to be skipped.
# The text is 1500 lines "line N of the text" of which the first member has those before 700.
set -e
LAST=1500
first() { i=0; while [ $i -lt 700 ]; do echo "line $i of the text"; i=$((i + 1)); done; }
second() { i=700; while [ $i -lt $LAST ]; do echo "line $i of the text"; i=$((i + 1)); done; }
{ first | gzip -9n; second | gzip -9n; } > text.gz
{ printf '\120\052\115\030\003\000\000\000abc'; first | zstd -q --check -c; second | zstd -q -19 --check -c; } > text.zst
