# The two roles of a run as steps of a Slurm job: sourced by carousel.sbatch and carousel-array.sbatch, started by nobody.
# It decides how often a role is launched again and how a signal reaches it; what is asked of Slurm stands in the scripts.
#
# A coordinator that ends with 0 has completed the run, with 130 was stopped at a checkpoint, with 2 was given bad input:
# none of these is launched again. A worker that ends with 0 was told that the run is over, or was drained.

say() { echo "$(date +%FT%T) carousel.slurm: $*" >&2; }

settings() {
  : "${CAROUSEL_CONFIG:?set CAROUSEL_CONFIG to the configuration, a TOML file on shared storage}"
  CAROUSEL_BIN=${CAROUSEL_BIN:-carousel}
  CAROUSEL_TRIES=${CAROUSEL_TRIES:-20}
  CAROUSEL_PAUSE=${CAROUSEL_PAUSE:-5}
  CAROUSEL_STEADY=${CAROUSEL_STEADY:-600}
  CAROUSEL_WAIT=${CAROUSEL_WAIT:-300}
  local config_name
  config_name=$(basename "$CAROUSEL_CONFIG" .toml)
  CAROUSEL_RUN=${CAROUSEL_RUN:-runs/$config_name}
}

# Two jobs on a node have two ports, and a requeued job has its old one. Below the range that Linux gives out by itself.
port_of() { echo "${CAROUSEL_PORT:-$((20000 + $1 % 12000))}"; }

# NODE's address as Slurm itself uses it: no DNS name is needed.
address_of() {
  local address
  address=$(scontrol show node "$1" -o | grep -o ' NodeAddr=[^ ]*' | cut -d= -f2)
  [ -n "$address" ] || { say "scontrol names no NodeAddr for node $1"; return 1; }
  echo "$address"
}

# An address that is a number is listened on alone; a name is resolved by the workers, and every address is listened on.
listen_on() {
  case $1 in
    *[!0-9.]*) echo "0.0.0.0:$2" ;;
    *) echo "$1:$2" ;;
  esac
}

# What both roles are told of TLS and token. Without both the program refuses by itself to listen beyond loopback.
doors() {
  local role=$1
  DOORS=()
  [ -z "${CAROUSEL_CERTS:-}" ] || DOORS+=(--tls "$CAROUSEL_CERTS/$role" --token-file "$CAROUSEL_CERTS/token")
  [ "${CAROUSEL_INSECURE:-0}" != 1 ] || DOORS+=(--insecure)
}

# step NODE CPUS COMMAND...: one task on one node. TERM is passed on to the task, by Slurm and not by srun.
step() {
  local node=$1 cpus=$2 name=carousel-$BASHPID
  shift 2
  srun --job-name="$name" --input=none --overlap --no-kill --kill-on-bad-exit=0 --nodes=1 --ntasks=1 \
    --cpus-per-task="$cpus" --nodelist="$node" "$@" &
  local child=$! rc=0
  # shellcheck disable=SC2064 # the names are this step's
  trap "SIGNALLED=1; end_step '$name' $child" TERM
  wait_through "$child" || rc=$?
  trap - TERM
  return "$rc"
}

# end_step NAME SRUN: the step by its name, or srun itself while it has no step yet.
end_step() {
  ENDING=1
  local id
  id=$(squeue --steps --noheader --jobs="$SLURM_JOB_ID" --format='%i %j' | awk -v name="$1" '$2 == name { print $1 }')
  if [ -n "$id" ]; then scancel --signal=TERM "$id" || true; else kill -INT "$2" 2>/dev/null || true; fi
}

# relaunch WHO FINAL NODE CPUS COMMAND...: until it ends with a code of FINAL (as " 0 2 "), at most CAROUSEL_TRIES times;
# a launch that lasted CAROUSEL_STEADY seconds begins the count anew.
relaunch() {
  local who=$1 final=$2 node=$3 cpus=$4 try=1 rc begun
  shift 4
  ENDING=0
  while :; do
    begun=$SECONDS rc=0
    step "$node" "$cpus" "$@" || rc=$?
    # An srun that was itself given a signal may end with 0 whatever its task did: that is not the end of the run.
    [ "$ENDING" = 0 ] || return "$((rc == 0 ? 143 : rc))"
    [[ $final != *" $rc "* ]] || return "$rc"
    [ $((SECONDS - begun)) -lt "$CAROUSEL_STEADY" ] || try=1
    say "$who on $node ended with $rc (try $try of $CAROUSEL_TRIES)"
    [ "$try" -lt "$CAROUSEL_TRIES" ] || return "$rc"
    try=$((try + 1))
    sleep "$CAROUSEL_PAUSE"
  done
}

# coordinator NODE CPUS ADDRESS PORT
coordinator() {
  doors coordinator
  relaunch coordinator " 0 2 130 " "$1" "$2" "$CAROUSEL_BIN" coordinator "$CAROUSEL_CONFIG" \
    --listen "$(listen_on "$3" "$4")" --run "$CAROUSEL_RUN" --start-or-resume "${DOORS[@]}"
}

# worker NODE CPUS ADDRESS PORT
worker() {
  doors worker
  relaunch worker " 0 2 " "$1" "$2" "$CAROUSEL_BIN" worker --coordinator "$3:$4" --threads "$2" \
    --wait "$CAROUSEL_WAIT" "${DOORS[@]}"
}

# The CPUs that one step may use on a node.
cpus() { echo "${CAROUSEL_THREADS:-${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}}"; }

# Waits for a process although a signal may come, whose trap sets SIGNALLED; gives its exit code.
wait_through() {
  local rc
  while :; do
    SIGNALLED=0 rc=0
    wait "$1" || rc=$?
    [ "$SIGNALLED" = 1 ] || return "$rc"
  done
}

# After the end of a coordinator: a job that was told to end before its time limit queues itself again. One that is cancelled or
# requeued by somebody is no longer RUNNING for Slurm, and is left alone.
conclude() {
  local rc=$1 told=$2 state
  if [[ " 130 143 " == *" $rc "* ]] && [ "$told" = 1 ]; then
    state=$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T || true)
    if [ "$state" = RUNNING ]; then
      say "stopped at a checkpoint before the time limit; the job is queued again"
      scontrol requeue "$SLURM_JOB_ID" || say "the job could not be queued again: submit it anew to go on"
    fi
  fi
  say "the coordinator ended with $rc"
  exit "$rc"
}
