#!/bin/sh
#SBATCH --job-name=ringrift-4c102969-01JOB.1
#SBATCH --comment=ringrift:owner:01JOB.1:1
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --partition=gpu
#SBATCH --account=lab
#SBATCH --qos=normal
#SBATCH --constraint=a100|h100
#SBATCH --time=12:00:00
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --gres=gpu:a100:1
#SBATCH --chdir=/nfs/ringrift
#SBATCH --output=/nfs/ringrift/agent/engine/ringrift-4c102969-01JOB.1.out
#SBATCH --no-requeue
#SBATCH --open-mode=append

exec srun --nodes=1 --ntasks=1 --cpus-per-task=8 /opt/python/bin/python3 -I -S /nfs/ringrift/agent/agent/ab/agent.py --root /nfs/ringrift/agent run 01JOB.1
