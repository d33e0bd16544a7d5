mkdir -p docs/sub build/out pkg/node_modules/x secret sub/secret sub/root-only .git root-only
for n in a.log important.log sub/a.log t.tmp sub/t.tmp docs/README.md docs/other.md docs/sub/README.md build/out/o pkg/node_modules/x/i pkg/main secret/s sub/secret/s sub/root-only/f root-only/f abc ac xray sub/yes .git/config keep; do echo "$n" >"$n"; done
