"""What bench-start and bench-publish share: the floor programs, the image
that every engine runs, and the table of targets.

The floor programs (floor.c, nlattach.c, pp.c, rbench.py) mark the physical
limit. They are looked for in $DOCKLESS_SHARED or ../shared next to the
repository; without them the rows that need them are skipped, out loud.
"""
import json, os, statistics, subprocess, sys

from engines import ROOT, dockless_binary, must

SHARED = os.path.join(os.environ.get('DOCKLESS_SHARED', os.path.join(ROOT, '..', 'shared')), 'bench')
PROGRAMS = ['ip:iproute2', 'nft:nftables', 'gcc:gcc', 'ld:binutils', 'nsenter:util-linux']
DOCKER = ['dockerd:docker.io', 'containerd:containerd', 'iptables:iptables']

# Programs of the image, the same for every engine.
TRUE = 'int main(void) { return 0; }'
SERVE = r'''
#include <unistd.h>
#include <netinet/in.h>
#include <sys/socket.h>
int main(void) {
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(5000) };
    int s = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(s, (void *)&at, sizeof at) || listen(s, 64)) return 1;
    for (;;) {
        int c = accept(s, 0, 0);
        if (c >= 0 && write(c, "x", 1) == 1) close(c);
    }
}
'''


def build(work, floor_programs):
    """The release binary, the image and the floor programs, in `work`; which
    of the latter are missing."""
    if not os.environ.get('DOCKLESS'):
        print('building dockless --release …', file=sys.stderr)
        subprocess.run(['cargo', 'build', '--release', '--quiet'], cwd=ROOT, check=True)
    if not os.access(dockless_binary(), os.X_OK):
        sys.exit(f'{dockless_binary()} is missing')
    rootfs = f'{work}/rootfs'
    for folder in ('bin', 'proc', 'sys', 'dev', 'etc', 'tmp'):
        os.makedirs(f'{rootfs}/{folder}')
    for name, text in (('true', TRUE), ('serve', SERVE)):
        source = f'{work}/{name}.c'
        open(source, 'w').write(text)
        must('gcc', '-O2', '-static', '-s', '-o', f'{rootfs}/bin/{name}', source)
    missing = []
    for name in floor_programs:
        source = os.path.join(SHARED, name)
        if not os.path.exists(source):
            missing.append(name)
        elif name.endswith('.c'):
            must('gcc', '-O2', '-w', '-o', f'{work}/{name[:-2]}', source)
    for name in missing:
        print(f'skipped: {os.path.join(SHARED, name)} is not here, so are the rows that need it '
              '(set DOCKLESS_SHARED)', file=sys.stderr)
    return missing


def interleaved(work, rounds, cases, settle=0.05):
    """Runs rbench.py over `name: (command, prep, post)`; milliseconds by name.
    `settle`: namespaces are cleared up in the background, and the next start
    should not pay for it."""
    listing, out = f'{work}/cases', f'{work}/cases.json'
    with open(listing, 'w') as f:
        for name, (command, prep, post) in cases.items():
            f.write(f'{name} | {command} | {prep} | {post}\n')
    p = subprocess.run([sys.executable, os.path.join(SHARED, 'rbench.py'), '-n', str(rounds), '-o', out, listing],
                       env={**os.environ, 'SETTLE': str(settle)}, stdout=subprocess.PIPE, text=True)
    print(p.stdout)
    if p.returncode:
        raise SystemExit('rbench.py failed')
    return {name: ms for name, ms in json.load(open(out))['ms'].items() if ms}


def median(values):
    return statistics.median(values)


class Targets:
    """One line a target: what was measured, against what, and the verdict."""

    def __init__(self):
        self.rows, self.missed, self.skipped = [], [], []

    def at_most(self, what, ours, limit, unit, note=''):
        self.row(what, f'{ours:.4g} {unit}', note, '', f'≤ {limit:.4g} {unit}', ours <= limit)

    def ratio(self, what, ours, theirs, unit, most=None, least=None):
        """ours / theirs must be at most, or at least, that."""
        ratio = ours / theirs
        bound = f'≤ {most}' if most is not None else f'≥ {least}'
        good = ratio <= most if most is not None else ratio >= least
        self.row(what, f'{ours:.4g} {unit}', f'{theirs:.4g} {unit}', f'{ratio:.2f}', bound, good)

    def info(self, what, ours, theirs, unit):
        self.rows.append((what, f'{ours:.4g} {unit}', f'{theirs:.4g} {unit}', f'{ours / theirs:.2f}', '', ''))

    def row(self, what, ours, theirs, ratio, bound, good):
        self.rows.append((what, ours, theirs, ratio, bound, 'ok' if good else '**MISSED**'))
        if not good:
            self.missed.append(what)

    def fail(self, what, why):
        self.row(what, 'failed', ' '.join(why.split())[-160:], '', '', False)

    def skip(self, what, why):
        self.rows.append((what, '', '', '', '', f'skipped: {why}'))
        self.skipped.append(what)

    def print(self):
        print('| what | measured | against | ratio | target | |\n|---|---|---|---|---|---|')
        for row in self.rows:
            print('| ' + ' | '.join(row) + ' |')
        judged = len(self.rows) - len(self.skipped)
        print(f'\n{judged} rows, {len(self.missed)} missed, {len(self.skipped)} skipped; '
              f'load average {open("/proc/loadavg").read().split()[0]} on {os.cpu_count()} cores')
        for what in self.missed:
            print(f'MISSED: {what}')
