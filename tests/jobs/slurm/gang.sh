#!/bin/sh
#SBATCH --job-name=ringrift-4c102969-01A.1+1.ccc5988b
#SBATCH --comment=ringrift:owner:01A.1:2
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --partition=gpu
#SBATCH --account=lab
#SBATCH --qos=normal
#SBATCH --constraint=a100|h100
#SBATCH --time=12:00:00
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --gres=gpu:a100:2
#SBATCH --chdir=/nfs/ringrift
#SBATCH --output=/nfs/ringrift/agent/engine/ringrift-4c102969-01A.1+1.ccc5988b.out
#SBATCH --no-requeue
#SBATCH --open-mode=append

exec srun --nodes=2 --ntasks=2 --ntasks-per-node=1 --kill-on-bad-exit=1 --cpus-per-task=8 /bin/sh -c 'case "$SLURM_PROCID" in
0) key=01A.1 ;;
1) key=01B.1 ;;
*) exit 125 ;;
esac
export PET_RDZV_ENDPOINT="$SLURM_LAUNCH_NODE_IPADDR:20123"
exec /opt/python/bin/python3 -I -S /nfs/ringrift/agent/agent/ab/agent.py --root /nfs/ringrift/agent run "$key"
'
