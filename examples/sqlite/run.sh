#!/usr/bin/env bash
# Builds the extension and asks from the sqlite3 shell; says what it checks, and fails where an answer is wrong.
#   PHI4FLASH_SQLITE    the shell (sqlite3)
# and what c_library.sh reads. Exit code 77: no SQLite here.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../c_library.sh"
shell=${PHI4FLASH_SQLITE:-sqlite3}
need "$shell" sqlite3
echo '#include <sqlite3ext.h>' | cc -fsyntax-only -x c - 2> /dev/null || skip "there is no sqlite3ext.h here (Debian: apt install libsqlite3-dev)"
compile_c_library

extension=$made/phi4flash_sqlite.so
links=("$library" "-Wl,-rpath,$(cd "$(dirname "$library")" && pwd)")
cc -std=c11 -O2 -Wall -Wextra -fPIC -shared "-I$root/include" "$here/phi4flash_sqlite.c" -o "$extension" "${links[@]}"
cc -std=c11 -O2 -Wall -Wextra "$here/two_connections.c" -o "$made/two_connections" -lsqlite3 -lpthread -ldl
export PHI4FLASH_MODEL=$model

sql() { "$shell" :memory: -cmd ".load $extension" "$@"; }
contains() { case $1 in *"$2"*) ;; *) fail "no $2 in: $1" ;; esac; }

echo "select phi4flash('What is 347 + 285?');"
answer=$(sql "select phi4flash('What is 347 + 285?')")
echo "$answer"
contains "$answer" 'boxed{632}'

# Tokens, one row each; together they are the answer. Three of them need no more than three.
[ "$(sql "select group_concat(text, '') from phi4flash_tokens('What is 347 + 285?')")" = "$answer" ] || fail "the tokens are not the answer"
rows=$(sql "select count(*) from phi4flash_tokens('What is 347 + 285?')")
[ "$rows" -gt 5 ] || fail "want a row for every token, have $rows"
[ "$(sql "select count(*) from phi4flash_tokens('What is 347 + 285?') limit 3")" = "$rows" ] || fail "count"
[ "$(sql "select position from phi4flash_tokens('What is 347 + 285?') limit 3" | tr '\n' ' ')" = "0 1 2 " ] || fail "limit"
[ "$(sql "select count(*) from phi4flash_tokens('What is 347 + 285?', 4)")" -le 5 ] || fail "max_tokens"
# What was asked is a column: of several questions, of one that is asked for twice, of a number of tokens.
[ "$(sql "select question, max_tokens, count(*) from phi4flash_tokens where question in ('What is 12 + 30?', 'What is 9 + 1?') and max_tokens = 3
    group by 1 order by 1")" = $'What is 12 + 30?|3|3\nWhat is 9 + 1?|3|3' ] || fail "two questions"
[ "$(sql "select count(*) from phi4flash_tokens('What is 347 + 285?') where question = 'What is 347 + 285?'")" = "$rows" ] || fail "asked for twice"
echo "a row for each of $rows tokens"

# A table of questions, joined with their answers.
answers=$(sql "create table sums(a, b); insert into sums values (347, 285), (12, 30), (999, 1);
    select (a + b) || ' ' || (phi4flash('What is ' || a || ' + ' || b || '?') like '%boxed{' || (a + b) || '}%') from sums;
    select count(distinct a) from sums, phi4flash_tokens('What is ' || a || ' + ' || b || '?')")
[ "$answers" = $'632 1\n42 1\n1000 1\n3' ] || fail "a table of sums: $answers"
echo "a table of three sums"

# Errors are sentences.
contains "$(sql "select * from phi4flash_tokens" 2>&1 || true)" "wants a question"
contains "$(sql "select phi4flash_open('no/such/model')" 2>&1 || true)" "no/such/model"
[ "$(sql "select phi4flash(null) is null")" = 1 ] || fail "null"

# Ctrl-C in a question that takes seconds: the shell reports it.
rm -f "$made/begun"
long="select length(phi4flash(replace(hex(zeroblob(20000)), '00', '1+1 ')))"
"$shell" :memory: -cmd ".load $extension" ".shell touch $made/begun" "$long" > "$made/interrupted.txt" 2>&1 &
asking=$!
until [ -e "$made/begun" ]; do kill -0 $asking || break; sleep 0.05; done
sleep 0.2
kill -INT $asking
wait $asking && fail "the interrupted shell succeeded: $(cat "$made/interrupted.txt")"
contains "$(cat "$made/interrupted.txt")" interrupt
echo "Ctrl-C ends a question"

"$made/two_connections" "$extension"
echo "sqlite: all well"
