#!/bin/sh
#SBATCH --job-name=ringrift-4c102969-01A.1+2.da8e872d_t2
#SBATCH --comment=ringrift:owner:01A.1:3
#SBATCH --array=0-2
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --partition=gpu
#SBATCH --account=lab
#SBATCH --qos=normal
#SBATCH --constraint=a100|h100
#SBATCH --time=12:00:00
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --chdir=/nfs/ringrift
#SBATCH --output=/nfs/ringrift/agent/engine/ringrift-4c102969-01A.1+2.da8e872d_t2.%a.out
#SBATCH --no-requeue
#SBATCH --open-mode=append

case "$SLURM_ARRAY_TASK_ID" in
0) key=01A.1 ;;
1) key=01B.1 ;;
2) key=01C.2 ;;
*) exit 125 ;;
esac
exec srun --nodes=1 --ntasks=1 --cpus-per-task=8 /opt/python/bin/python3 -I -S /nfs/ringrift/agent/agent/ab/agent.py --root /nfs/ringrift/agent run "$key"
