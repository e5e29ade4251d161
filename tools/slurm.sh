#!/bin/bash
# A training under Slurm that survives preemption and the end of its time: sbatch tools/slurm.sh CONFIG [key=value ...]
#
# One task a machine, which starts a process for each of its GPUs. Before the time is up, or when the job is preempted,
# the processes are sent USR1 (TERM): they finish their step, save and exit with 75; the job then queues itself again
# and goes on from there. Set the lines below as your cluster wants them; docs/machines.md says more.
#SBATCH --job-name=hdetr_d2
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.log
set -u

config=${1:?usage: sbatch tools/slurm.sh CONFIG [key=value ...]}
shift
program=${PROGRAM:-python train_net.py}
host=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 20000))
export PROGRAM_LINE="$program --config-file $config --resume"
export ADDRESS="tcp://$host:$port"

# exec: so that signals reach the program and not a shell before it
# shellcheck disable=SC2016  # what stands in quotes is for the tasks
srun --kill-on-bad-exit=1 bash -c '
    exec $PROGRAM_LINE --num-gpus "${SLURM_GPUS_ON_NODE:-1}" --num-machines "$SLURM_NNODES" \
        --machine-rank "$SLURM_NODEID" --dist-url "$ADDRESS" "$@"' task "$@" &
step=$!

# A trap, and not an ignored signal, which the tasks would inherit. srun hands the signal to every task.
trap 'interrupted=1; kill -USR1 "$step" 2>/dev/null' USR1 TERM
code=1
interrupted=1
while [ "$interrupted" = 1 ]; do # a signal ends wait before the step has ended
    interrupted=0
    wait "$step"
    status=$?
    [ "$status" = 127 ] || code=$status # 127: the code is known already
done

if [ "$code" = 75 ]; then
    echo "stopped after a whole step; queueing again"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
