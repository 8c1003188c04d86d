"""Docker and dockless, each with folders of its own, for the scripts that
compare them; and how those scripts run things. They run inside a lab
(scripts/lab), where /run is a tmpfs of their own.
"""
import os, signal, subprocess, sys, time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)


# --- the two engines

class Docker:
    name = 'docker'
    # Debian's own client, of the same version as its daemon.
    program = '/usr/bin/docker'

    def __init__(self, work, rootfs, network=('--bridge=none', '--iptables=false')):
        self.work, self.rootfs, self.daemons = work, rootfs, []
        sock = f'{work}/docker.sock'
        self.argv = [self.program, '-H', f'unix://{sock}']
        self.folders = [f'{work}/data']
        self.containers = f'{work}/data/containers'
        ctr = f'{work}/containerd.sock'
        self.spawn('containerd', '--address', ctr, '--root', f'{work}/containerd-root',
                   '--state', f'{work}/containerd-state')
        wait_for(lambda: os.path.exists(ctr), 'containerd')
        self.spawn('dockerd', *network, '--data-root', f'{work}/data',
                   '--exec-root', f'{work}/exec', '--pidfile', f'{work}/docker.pid', '-H', f'unix://{sock}',
                   '--containerd', ctr)
        wait_for(lambda: sh(*self.argv, 'version').code == 0, 'dockerd')
        tar = subprocess.run(['tar', '-C', rootfs, '-c', '.'], stdout=subprocess.PIPE, check=True).stdout
        subprocess.run([*self.argv, 'import', '-', 'bb'], input=tar, stdout=subprocess.DEVNULL, check=True)

    def spawn(self, *argv):
        log = open(f'{self.work}/{argv[0]}.log', 'w')
        # A session of its own: the client's tests send signals to groups.
        self.daemons.append(subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True))

    def image(self, argv):
        return ['bb', *argv]

    def stop(self):
        remove_all(self)
        for daemon in reversed(self.daemons):
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(30)


class Dockless:
    name = 'dockless'

    def __init__(self, work, rootfs):
        self.work, self.rootfs = work, rootfs
        self.argv = [dockless_binary(), '--root', f'{work}/root', '--state', f'{work}/state']
        self.folders = [f'{work}/root', f'{work}/state']
        self.containers = os.path.join(self.folders[0], 'containers')

    def image(self, argv):
        return ['--rootfs', self.rootfs, *argv]

    def stop(self):
        """A lab's end kills its processes, but cgroups are in no namespace."""
        remove_all(self)


def remove_all(engine):
    left = sh(*engine.argv, 'ps', '-aq').out.split()
    if left:
        sh(*engine.argv, 'rm', '-f', *left)


def dockless_binary():
    if os.environ.get('DOCKLESS'):
        return os.environ['DOCKLESS']
    target = os.environ.get('CARGO_TARGET_DIR', os.path.join(ROOT, 'target'))
    return os.path.join(target, 'x86_64-unknown-linux-gnu', 'release', 'dockless')


# --- running things

class Answer:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err


def sh(*argv, stdin='', timeout=90):
    try:
        p = subprocess.run(argv, input=stdin, capture_output=True, text=True, errors='replace', timeout=timeout)
        return Answer(p.returncode, p.stdout, p.stderr)
    except subprocess.TimeoutExpired as e:
        text = lambda b: (b or b'').decode(errors='replace')
        return Answer(-1, text(e.stdout), text(e.stderr) + '\n(no end within %d s)' % timeout)
    except FileNotFoundError as e:
        return Answer(-2, '', str(e))


def must(*argv, **kw):
    """The same, and what it printed; a failure ends the script."""
    answer = sh(*argv, **kw)
    if answer.code:
        raise SystemExit(f'{" ".join(map(str, argv))}: exit {answer.code}\n{answer.out}{answer.err}')
    return answer.out.strip()


def on(machine, *argv, **kw):
    return sh('nsenter', f'--net=/run/netns/{machine}', '--', *argv, **kw)


def wait_for(condition, what, seconds=30):
    end = time.time() + seconds
    while not condition():
        if time.time() > end:
            raise SystemExit(f'{what} did not come up')
        time.sleep(0.05)


def need(*pairs):
    """Installs what is missing (`program:package`) or ends the script, skipped."""
    code = subprocess.run(['bash', '-c', f'. "{HERE}/lab"; need_programs "$@"', 'lab', *pairs]).returncode
    if code:
        sys.exit(code)
    os.environ['PATH'] += ':/usr/local/sbin:/usr/sbin:/sbin'


def lab_command(*argv):
    """This script again, on the host machine of a fresh LAN."""
    return [os.path.join(HERE, 'lab'), sys.executable, os.path.abspath(sys.argv[0]), *argv]


def in_lab(*argv):
    return subprocess.run(lab_command(*argv)).returncode


def sweep_cgroups(name):
    subprocess.run(['bash', '-c', f'. "{HERE}/lab"; lab_sweep_cgroups {name}'])
