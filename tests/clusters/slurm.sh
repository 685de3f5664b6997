#!/bin/bash
# A real Slurm on loopback in this container: sets it up, runs a command (by default the tests
# marked slurm), takes it down. As root, after apt-get install --no-install-recommends slurm-wlm munge.
#   tests/clusters/slurm.sh                    the tests
#   tests/clusters/slurm.sh COMMAND ...        a command with SLURM_CONF set
#   tests/clusters/slurm.sh start|stop FOLDER  only the one or the other
set -eu

start() {
  local root=$1 port=${SLURM_TEST_PORT:-16817}
  command -v slurmctld slurmd munged scontrol >/dev/null || {
    echo "slurm-wlm and munge are not installed: apt-get install --no-install-recommends slurm-wlm munge" >&2
    exit 2
  }
  mkdir -p "$root"/{state,spool,log} /run/munge
  [ -s /etc/munge/munge.key ] || { dd if=/dev/urandom of=/etc/munge/munge.key bs=1 count=1024 status=none; }
  chown munge:munge /run/munge /etc/munge/munge.key; chmod 400 /etc/munge/munge.key
  if ! munge -n >/dev/null 2>&1; then
    setpriv --reuid=munge --regid=munge --clear-groups munged --log-file="/run/munge/munged.log"
    touch "$root/munged"
  fi
  # Files that look like two cards: a job sees CUDA_VISIBLE_DEVICES, and no GPU behind it.
  for card in 0 1; do [ -e "$root/nvidia$card" ] || mknod "$root/nvidia$card" c 1 3; done
  cat > "$root/slurm.conf" <<CONF
ClusterName=loopback
SlurmctldHost=localhost(127.0.0.1)
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
SlurmctldPort=$port
SlurmdPort=$((port + 1))
StateSaveLocation=$root/state
SlurmdSpoolDir=$root/spool/%n
SlurmctldPidFile=$root/slurmctld.pid
SlurmdPidFile=$root/slurmd-%n.pid
SlurmctldLogFile=$root/log/slurmctld.log
SlurmdLogFile=$root/log/slurmd-%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
KillWait=10
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,bf_interval=1,requeue_setup_env_fail
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=one NodeHostname=localhost NodeAddr=127.0.0.1 Port=$((port + 1)) CPUs=2 RealMemory=8000 Gres=gpu:2
NodeName=two NodeHostname=localhost NodeAddr=127.0.0.1 Port=$((port + 2)) CPUs=2 RealMemory=8000
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
  echo "CgroupPlugin=cgroup/v1" > "$root/cgroup.conf"
  echo "NodeName=one Name=gpu File=$root/nvidia[0-1] Flags=nvidia_gpu_env" > "$root/gres.conf"
  export SLURM_CONF=$root/slurm.conf
  slurmctld -c
  for node in one two; do slurmd -N "$node"; done
  for _ in $(seq 60); do
    [ "$(sinfo -h -t idle -o %D 2>/dev/null)" = 2 ] && return
    sleep 0.5
  done
  sinfo -N -l >&2
  tail -n 20 "$root"/log/*.log >&2
  exit 1
}

stop() {
  local root=$1 pid
  export SLURM_CONF=$root/slurm.conf
  scancel --user=root 2>/dev/null || true
  for pid in "$root"/slurmctld.pid "$root"/slurmd-*.pid; do
    [ -s "$pid" ] && kill "$(cat "$pid")" 2>/dev/null || true
  done
  if [ -e "$root/munged" ]; then kill "$(cat /run/munge/munged.pid)" 2>/dev/null || true; fi
  for _ in $(seq 20); do
    pgrep -f "slurm(ctld|d).*$root" >/dev/null || break
    sleep 0.25
  done
}

case ${1:-} in
  start) start "$2"; echo "export SLURM_CONF=$2/slurm.conf" ;;
  stop) stop "$2"; rm -rf "$2" ;;
  *)
    root=$(mktemp -d /tmp/slurm-test.XXXXXX)
    trap 'stop "$root"; rm -rf "$root"' EXIT
    start "$root"
    export SLURM_CONF=$root/slurm.conf
    if [ $# -eq 0 ]; then
      set -- python -m pytest -m slurm tests -p no:randomly -q
    fi
    "$@"
    ;;
esac
