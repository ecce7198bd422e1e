#!/bin/sh
# What tests of the page, of LaTeX tables, of a database on a server and of a cluster need from
# Debian: chromium, pdflatex, PostgreSQL and SLURM, of which the tests start private servers.
# Where it cannot be installed, one line says so, and those tests are skipped.

packages=""
command -v chromium >/dev/null || packages="chromium"
command -v pdflatex >/dev/null && kpsewhich booktabs.sty >/dev/null ||
    packages="$packages texlive-latex-base texlive-latex-recommended"
for server in "$(command -v initdb)" /usr/lib/postgresql/*/bin/initdb; do
    [ -x "$server" ] && break
done
[ -x "$server" ] || packages="$packages postgresql"
for program in slurmctld slurmd munged sbatch; do
    PATH="$PATH:/usr/sbin" command -v "$program" >/dev/null && continue
    packages="$packages slurmctld slurmd slurm-client munge"
    break
done
[ -n "$packages" ] || exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "tests that need these are skipped, which root can apt-get install:" $packages
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
said=$(apt-get update -qq -o Acquire::http::Timeout=20 2>&1 &&
    apt-get install -y -qq --no-install-recommends $packages 2>&1) ||
    echo "not installed, so tests are skipped:" $packages "($(printf '%s' "$said" | tail -n 1))"
exit 0
