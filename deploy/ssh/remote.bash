# What carousel-ssh runs on a host, as `bash -s -- VERB FOLDER ...` or, for `keep`, from the host's own copy. It touches nothing
# outside of FOLDER and ends nothing but what the pid files in it name.
#
#   ROLE.pid    the loop that keeps a role alive      ROLE.child   the program itself
#   ROLE.log    what both said                        ROLE.ended   the last exit code
set -euo pipefail

# The process of a pid file, when it is there and really is the loop of this folder: ids are used again.
loop_of() {
  local pid
  pid=$(cat "$1.pid" 2>/dev/null) || return 1
  tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF "remote.bash keep $PWD $1 " || return 1
  echo "$pid"
}

# keep FOLDER ROLE FINAL COMMAND...: runs it again when it dies, 20 times with CAROUSEL_PAUSE seconds between; ten minutes of life begin the
# count anew. Codes in FINAL (as ",0,2,") end it.
keep() {
  local role=$1 final=$2 try=1 rc begun child='' ending=0 signalled=0
  shift 2
  echo $$ >"$role.pid"
  rm -f "$role.ended"
  trap 'ending=1 signalled=1; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null || true' TERM
  while :; do
    begun=$SECONDS
    "$@" &
    child=$!
    echo "$child" >"$role.child"
    while :; do
      signalled=0 rc=0
      wait "$child" || rc=$?
      [ "$signalled" = 1 ] || break
    done
    echo "$(date +%FT%T) carousel-ssh: $role ended with $rc (try $try of 20)"
    [ $((SECONDS - begun)) -lt 600 ] || try=1
    if [[ $final == *",$rc,"* ]] || [ "$ending" = 1 ] || [ "$try" -ge 20 ]; then break; fi
    try=$((try + 1))
    sleep "$CAROUSEL_PAUSE"
    [ "$ending" = 0 ] || break
  done
  echo "$rc" >"$role.ended"
  rm -f "$role.pid" "$role.child"
  exit "$rc"
}

# start FOLDER ROLE FINAL COMMAND...
start() {
  local role=$1
  if loop_of "$role" >/dev/null; then echo "$role runs already (process $(cat "$role.pid"))"; return; fi
  rm -f "$role.pid" "$role.ended"
  setsid nohup bash "$PWD/remote.bash" keep "$PWD" "$@" >>"$role.log" 2>&1 </dev/null &
  for _ in $(seq 100); do
    if loop_of "$role" >/dev/null || [ -e "$role.ended" ]; then break; fi
    sleep 0.05
  done
  loop_of "$role" >/dev/null || { echo "$role did not stay: $(tail -n 1 "$role.log")"; return 1; }
  echo "$role started (process $(cat "$role.pid"))"
}

status() {
  local role pid rc=0
  for role in coordinator worker; do
    [ -e "$role.log" ] || continue
    if pid=$(loop_of "$role"); then
      echo "$role runs (process $(cat "$role.child"), kept by $pid)"
    else
      echo "$role does not run (it ended with $(cat "$role.ended" 2>/dev/null || echo 'no word'))"
      rc=1
    fi
  done
  return "$rc"
}

# stop FOLDER ROLE SECONDS: TERM, so that a coordinator writes a checkpoint; KILL after so many seconds. A worker is stopped when
# its coordinator is gone: it holds nothing then that the checkpoint does not, and to kill it is no failure.
stop() {
  local role=$1 seconds=$2 pid child
  pid=$(loop_of "$role") || return 0
  child=$(cat "$role.child" 2>/dev/null || true)
  kill -TERM "$pid"
  for _ in $(seq $((seconds * 10))); do
    kill -0 "$pid" 2>/dev/null || { echo "$role stopped (with $(cat "$role.ended"))"; return; }
    sleep 0.1
  done
  kill -KILL "$pid" ${child:+"$child"} 2>/dev/null || true
  rm -f "$role.pid" "$role.child"
  echo "$role did not end within $seconds s and was killed"
  [ "$role" = worker ]
}

verb=$1 folder=$2
shift 2
case $verb in
  keep | start | status | stop) ;;
  *) echo "remote.bash: unknown verb $verb" >&2; exit 2 ;;
esac
mkdir -p "$folder"
cd "$folder"
"$verb" "$@"
