#!/bin/bash
# report.sh SUITE BASELINE RESULT RUNTIME SECONDS: prints integration/results/conformance-SUITE.md. BASELINE and RESULT are lines
# "ok|not ok|skip <TAB> file <TAB> test <TAB> reason"; causes that are known stand in SUITE.causes ("file <TAB> test <TAB> cause").
set -euo pipefail
reference=${REFERENCE:-$1} suite=$1 baseline=$2 result=$3 runtime=$4 seconds=$5
written_by=${WRITTEN_BY:-make conformance-runtime}
here=$(cd "$(dirname "$0")" && pwd -P)
row() { awk -F '\t' -v name="$1" '{ n[$1]++ } END { printf "| %s | %d | %d | %d |\n", name, n["ok"], n["not ok"], n["skip"] }' "$2"; }
cat <<T
# $suite's own tests

Written by \`$written_by\` (\`integration/conformance/$suite.sh\`): $(date -u '+%F %R') UTC, commit $(git -C "$here" rev-parse --short HEAD),
kernel $(uname -r), $(nproc) cores, load $(cut -d' ' -f1 /proc/loadavg), $seconds s. The suite is $(cat "$(dirname "$result")/version" 2>/dev/null || echo "$suite").
The baseline is $reference, measured in the same way on a machine of this kind.

| runtime | passed | failed | skipped |
| --- | --- | --- | --- |
$(row "$runtime" "$result")
$([ ! -e "$baseline" ] || row "$reference (baseline)" "$baseline")

T
[ -e "$baseline" ] || exit 0
touch "$here/$suite.causes"
compare() { # RESULT of ours, of the baseline
  awk -F '\t' -v mine="$1" -v theirs="$2" -v causes="$here/$suite.causes" '
    BEGIN { while ((getline line < causes) > 0) { split(line, c, "\t"); cause[c[1] "\t" c[2]] = c[3] } }
    NR == FNR { base[$2 "\t" $3] = $1; next }
    $1 ~ mine && base[$2 "\t" $3] ~ theirs {
      why = cause[$2 "\t" $3]; if (why == "") why = cause[$2 "\t*"]; if (why == "") why = $4
      printf "| %s | %s | %s | %s |\n", $2, $3, $1, why }' "$baseline" "$result"
}
section() { # title, rows
  printf '## %s\n\n' "$1"
  if [ -n "$2" ]; then printf '| file | test | here | cause |\n| --- | --- | --- | --- |\n%s\n\n' "$2"; else printf 'None.\n\n'; fi
}
section "Passed by $reference, not here" "$(compare '^(not ok|skip)$' '^ok$')"
section "Passed here, not by $reference" "$(compare '^ok$' '^(not ok|skip)$')"
section "Failed by both" "$(compare '^not ok$' '^not ok$')"
