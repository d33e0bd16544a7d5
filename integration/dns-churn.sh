#!/bin/bash
# make dns-churn: N lookups (1,000,000) while containers join and leave; the count goes to integration/results/dns-churn.md.
source "$(dirname "$0")/counted-test.sh"
export WHERRY_CHURN_LOOKUPS=${1:-1000000}
counted_test churn wherry-netd it churn::no_answer_is_wrong_or_lost
keep dns-churn.md "$(count lookups)" "$(count wrong)" "$(count lost)" "$(count certain)" "$(count comings)" "$(count seconds)" <<'HEAD'
# Lookups while containers come and go

Written by `make dns-churn`: four clients in containers ask 127.0.0.11 for names that stay, for names of containers that are made and removed
meanwhile (also from the host's resolver, which denies them), and for an alias with four addresses. Every answer is checked against what was true while it was
asked for; "certain" are the answers about a changing name whose state did not change in between. netd is a debug build.

| date | commit | lookups | wrong | lost | certain | joined and left | seconds | outcome |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
HEAD
