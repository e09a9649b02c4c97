import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { EXECUTABLE, firstOutput, Sandbox } from '../fixtures/executable/index.ts';
import { busyboxLayer, layerOf } from '../fixtures/images/index.ts';
import { Podman } from '../fixtures/podman.ts';
import { type PushedImage, Pusher, type RegistryFixture, startRegistry } from '../fixtures/registry/index.ts';

let registry: RegistryFixture;
let image: PushedImage;
let sandbox: Sandbox;
let podman: Podman | undefined;

beforeAll(async () => {
  registry = await startRegistry();
  const more =
    'mkdir -p bin run var/tmp work; for name in hostname stty pwd kill find sort sed umask ulimit readlink mkdir; do ln -sf busybox bin/$name; done';
  image = await new Pusher(registry).image({
    repository: 'flags/app',
    tag: '1',
    layers: [await busyboxLayer(), await layerOf(more)],
    config: {
      config: {
        Entrypoint: ['/bin/echo', 'entry'],
        Cmd: ['image', 'command'],
        Env: ['PATH=/bin', 'FROM_IMAGE=yes'],
        WorkingDir: '/work',
      },
    },
  });
  sandbox = await Sandbox.make();
  await sandbox.serve();
  expect(await sandbox.run(['image', 'add', image.reference])).toMatchObject({ code: 0 });
  podman = await Podman.open(image.reference);
  for (const name of ['rw', 'ro']) {
    await mkdir(join(sandbox.directory, name), { recursive: true });
    await Bun.write(join(sandbox.directory, name, 'given'), 'given\n');
  }
  await Bun.write(join(sandbox.directory, 'env'), '# comment\n  A=from file\nB=two = words\nHERE\nC=\n');
}, 120_000);

afterAll(async () => {
  await podman?.[Symbol.asyncDispose]();
  await sandbox?.[Symbol.asyncDispose]();
  await registry?.stop();
}, 60_000);

interface Row {
  readonly flags: readonly string[];
  /** What follows the image. */
  readonly command?: readonly string[];
  /** A pattern where the kernel has a say: podman's is the same as ours then. */
  readonly stdout: string | RegExp;
  readonly code?: number;
  /** Where podman does otherwise: what it does, and why we do not. */
  readonly podman?: string;
}

const shell = (script: string): Pick<Row, 'command'> => ({ command: ['-c', script] });
const SH = ['--entrypoint', '/bin/sh'];
// `$` stands for the sandbox's directory.
const rows: readonly Row[] = [
  { flags: [], stdout: 'entry image command\n' },
  { flags: [], command: ['given'], stdout: 'entry given\n' },
  { flags: ['--entrypoint', '/bin/echo'], stdout: '\n' },
  { flags: ['--entrypoint', '/bin/echo'], command: ['given'], stdout: 'given\n' },
  { flags: ['--entrypoint', '["/bin/echo","two words"]'], command: ['given'], stdout: 'two words given\n' },
  { flags: ['--entrypoint='], command: ['/bin/echo', 'bare'], stdout: 'bare\n' },
  { flags: ['--entrypoint', '/bin/echo no'], stdout: '', code: 127 },
  { flags: ['--entrypoint', '/etc/passwd'], stdout: '', code: 126 },
  { flags: SH, ...shell('exit 42'), stdout: '', code: 42 },
  { flags: SH, ...shell('pwd'), stdout: '/work\n' },
  { flags: [...SH, '--workdir', '/tmp'], ...shell('pwd'), stdout: '/tmp\n' },
  { flags: [...SH, '--workdir', '/none'], ...shell('pwd'), stdout: '', code: 126 },
  {
    flags: [...SH, '--user', 'app'],
    ...shell('id; echo $HOME'),
    stdout: 'uid=1000(app) gid=1000(app) groups=1000(app),2000(extra)\n/home/app\n',
  },
  { flags: [...SH, '--user', 'app:extra'], ...shell('id -u; id -g'), stdout: '1000\n2000\n' },
  { flags: [...SH, '--user', '77:88'], ...shell('id -u; id -g; id -G'), stdout: '77\n88\n88\n' },
  {
    flags: [...SH, '--user', '77:88'],
    ...shell('echo $HOME'),
    stdout: '/\n',
    podman: 'the working directory, for a user that the image does not know; docker takes /',
  },
  { flags: [...SH, '--user', 'nobody-at-all'], ...shell('id'), stdout: '', code: 126 },
  { flags: [...SH, '--user', 'app:no-group'], ...shell('id'), stdout: '', code: 126 },
  { flags: [...SH, '--user', ':2000'], ...shell('id -u; id -g; id -G'), stdout: '0\n2000\n2000\n' },
  {
    flags: [...SH, '-e', 'A=1', '--env', 'HERE', '--env', 'ABSENT', '--env', 'B=', '--env', 'FROM_IMAGE=no'],
    ...shell('echo "[$A][$HERE][$FROM_IMAGE]"; env | grep -c ^ABSENT; env | grep ^B='),
    stdout: '[1][of this shell][no]\n0\nB=\n',
  },
  {
    flags: [...SH, '--env-file', '$/env', '--env', 'A=wins'],
    ...shell('echo "[$A][$B][$HERE]"; env | grep ^C='),
    stdout: '[wins][two = words][of this shell]\nC=\n',
  },
  {
    flags: [...SH, '--mount', 'type=bind,source=$/rw,target=/data'],
    ...shell('cat /data/given; echo made > /data/made && cat /data/made'),
    stdout: 'given\nmade\n',
  },
  {
    flags: [...SH, '--mount', 'type=bind,src=$/ro,dst=/data,ro'],
    ...shell('cat /data/given; (echo x > /data/x) 2>/dev/null || echo refused'),
    stdout: 'given\nrefused\n',
  },
  {
    flags: [...SH, '--volume', '$/ro:/data:ro', '-v', '$/rw:/more'],
    ...shell('cat /data/given /more/given; (echo x > /data/x) 2>/dev/null || echo refused'),
    stdout: 'given\ngiven\nrefused\n',
  },
  { flags: [...SH, '-v', '$/none:/data'], ...shell('true'), stdout: '', code: 125 },
  { flags: [...SH, '-v', '$/rw'], ...shell('true'), stdout: '', code: 125, podman: 'an anonymous volume' },
  { flags: [...SH, '--rm'], ...shell('echo once; exit 3'), stdout: 'once\n', code: 3 },
  {
    flags: [...SH, '--mount', 'type=bind,source=$/none,target=/data'],
    ...shell('true'),
    stdout: '',
    code: 125,
  },
  {
    flags: [...SH, '--mount', 'type=tmpfs,target=/scratch,tmpfs-size=1m'],
    ...shell(
      "grep -o 'tmpfs /scratch tmpfs rw,nosuid,nodev,relatime,size=1024k' /proc/mounts; stat -c %a /scratch",
    ),
    stdout: 'tmpfs /scratch tmpfs rw,nosuid,nodev,relatime,size=1024k\n1777\n',
  },
  {
    flags: [...SH, '--mount', 'type=tmpfs,target=/scratch,tmpfs-mode=700,ro'],
    ...shell('stat -c %a /scratch; (echo x > /scratch/x) 2>/dev/null || echo refused'),
    stdout: '700\nrefused\n',
  },
  { flags: [...SH, '--mount', 'type=tmpfs'], ...shell('true'), stdout: '', code: 125 },
  { flags: [...SH, '--mount', 'type=nonsense,target=/t'], ...shell('true'), stdout: '', code: 125 },
  { flags: [...SH, '--mount', 'type=bind,source=/tmp,target=t'], ...shell('true'), stdout: '', code: 125 },
  {
    flags: [...SH, '--read-only'],
    ...shell('for f in hosts hostname; do (echo >> /etc/$f) 2>/dev/null || echo $f; done'),
    stdout: 'hosts\nhostname\n',
  },
  {
    flags: [...SH, '--read-only'],
    ...shell(
      'for d in / /work /etc /tmp /run /var/tmp /dev/shm; do (touch $d/x) 2>/dev/null && echo $d; done',
    ),
    stdout: '/tmp\n/run\n/var/tmp\n/dev/shm\n',
  },
  {
    flags: [...SH, '--hostname', 'given.name'],
    ...shell('hostname; echo $HOSTNAME; grep -c given.name /etc/hosts'),
    stdout: 'given.name\ngiven.name\n1\n',
  },
  {
    flags: SH,
    ...shell('grep -E "^(NoNewPrivs|Seccomp|Groups|Umask):" /proc/self/status; cat /proc/self/oom_score_adj'),
    stdout: 'Umask:\t0022\nGroups:\t \nNoNewPrivs:\t0\nSeccomp:\t2\n0\n',
  },
  {
    flags: [...SH, '--security-opt', 'no-new-privileges'],
    ...shell('grep NoNewPrivs /proc/self/status'),
    stdout: 'NoNewPrivs:\t1\n',
  },
  {
    flags: SH,
    ...shell('env | grep -v -e HOSTNAME -e ^container= | sort'),
    stdout: 'FROM_IMAGE=yes\nHOME=/root\nPATH=/bin\nPWD=/work\nSHLVL=1\nTERM=xterm\n',
  },
  {
    flags: SH,
    ...shell('env | grep ^container='),
    stdout: 'container=imgcred\n',
    podman: 'its own name',
  },
  {
    flags: SH,
    ...shell('find /dev -mindepth 1 | sort; for l in /dev/fd /dev/ptmx /etc/mtab; do readlink $l; done'),
    stdout: [
      ...'core fd full mqueue null ptmx pts pts/ptmx random shm stderr stdin stdout tty urandom zero'
        .split(' ')
        .map((name) => `/dev/${name}`),
      '/proc/self/fd',
      'pts/ptmx',
      '/proc/mounts',
      '',
    ].join('\n'),
  },
  {
    flags: SH,
    ...shell(
      `grep -E '^(proc|tmpfs|devpts|mqueue|sysfs|devtmpfs) ' /proc/mounts | sed 's/[a-z0-9_]*=[^, ]*,*//g' | sort`,
    ),
    // What is masked differs with what the kernel has.
    stdout:
      /^devpts \/dev\/pts devpts rw,nosuid,noexec,relatime, 0 0\n(.*\n)*sysfs \/sys sysfs ro,nosuid,nodev,noexec,relatime 0 0\n/,
  },
  {
    flags: SH,
    ...shell(
      'cat /proc/keys /proc/kcore /proc/timer_list | wc -c; for d in acpi scsi; do ls /proc/$d; done; ls /sys/firmware /sys/dev/block; (echo 1 > /proc/sys/kernel/domainname) 2>/dev/null || echo refused',
    ),
    stdout: /^0\n(.*\n)*refused\n$/,
  },
  { flags: SH, ...shell('cat; echo read to its end'), stdout: 'read to its end\n' },
  { flags: ['-i', ...SH], ...shell('cat; echo read to its end'), stdout: 'read to its end\n' },
  {
    flags: SH,
    ...shell('kill -9 $$; echo the first process has no default action'),
    stdout: 'the first process has no default action\n',
  },
  { flags: SH, ...shell('sh -c "kill -9 \\$\\$"; echo $?'), stdout: '137\n' },
  { flags: SH, ...shell('ls /proc/1/fd; true'), stdout: '0\n1\n2\n' },
  {
    flags: [...SH, '--memory', '0', '--cpus', '0', '--pids-limit', '0'],
    ...shell('echo no limit'),
    stdout: 'no limit\n',
  },
  { flags: [...SH, '--stop-timeout', 'x'], ...shell('true'), stdout: '', code: 125 },
  { flags: [...SH, '--pids-limit', '-1'], ...shell('echo no limit'), stdout: 'no limit\n' },
  { flags: [...SH, '--env-file', '/none'], ...shell('true'), stdout: '', code: 125 },
  { flags: [...SH, '--env', '=x'], ...shell('true'), stdout: '', code: 125 },
  { flags: [...SH, '--name', 'bad/name'], ...shell('true'), stdout: '', code: 125 },
  { flags: [...SH, '--network', 'none-such'], ...shell('true'), stdout: '', code: 125 },
  { flags: [...SH, '--no-such-option'], ...shell('true'), stdout: '', code: 125 },
  { flags: [...SH, '--label', 'a=1', '--label', 'b'], ...shell('true'), stdout: '' },
  { flags: SH, ...shell('grep CapEff /proc/self/status'), stdout: 'CapEff:\t00000000800405fb\n' },
  {
    flags: [...SH, '--cap-drop', 'all'],
    ...shell('grep CapEff /proc/self/status'),
    stdout: 'CapEff:\t0000000000000000\n',
  },
  {
    flags: [...SH, '--cap-drop', 'ALL', '--cap-add', 'CAP_CHOWN'],
    ...shell('grep CapEff /proc/self/status'),
    stdout: 'CapEff:\t0000000000000001\n',
  },
  {
    flags: [...SH, '--cap-drop', 'chown'],
    ...shell('grep CapEff /proc/self/status'),
    stdout: 'CapEff:\t00000000800405fa\n',
  },
  {
    flags: [...SH, '--user', 'app'],
    ...shell('grep CapEff /proc/self/status'),
    stdout: 'CapEff:\t0000000000000000\n',
  },
  {
    flags: [...SH, '--cap-add', 'SYS_ADMIN', '--user', 'app'],
    ...shell('grep -E "Cap(Prm|Amb)" /proc/self/status'),
    stdout: 'CapPrm:\t0000000000200000\nCapAmb:\t0000000000200000\n',
  },
  { flags: [...SH, '--cap-add', 'CHOWN', '--cap-drop', 'CHOWN'], ...shell('true'), stdout: '', code: 125 },
  {
    flags: [...SH, '--cap-add', 'no-such'],
    ...shell('true'),
    stdout: '',
    code: 125,
  },
  { flags: [...SH, '--network', 'none'], ...shell('ls /sys/class/net'), stdout: 'lo\n' },
];

describe('imgcred run does what podman run does', () => {
  const inSandbox = (text: string) => text.replaceAll('$/', `${sandbox.directory}/`);
  test.each(
    rows.map((row): [string, Row] => [[...row.flags, 'IMAGE', ...(row.command ?? [])].join(' '), row]),
  )(
    '%s',
    async (_, { flags, command = [], stdout, code = 0, podman: otherwise }) => {
      const env = { HERE: 'of this shell' };
      const given = flags.map(inSandbox);
      const ours = await sandbox.run(['run', ...given, image.reference, '--', ...command], { env });
      if (typeof stdout === 'string')
        expect({ code: ours.code, stdout: ours.stdout }).toEqual({ code, stdout });
      else expect(ours.stdout).toMatch(stdout);
      if (podman === undefined || otherwise !== undefined) return;
      const theirs = await podman.run([...given, image.reference, ...command], env);
      expect({ code: theirs.code, stdout: theirs.stdout }).toEqual({ code: ours.code, stdout: ours.stdout });
    },
    20_000,
  );

  test('--network host shares the host’s interfaces', async () => {
    const done = await sandbox.run([
      'run',
      '--network',
      'host',
      ...SH,
      image.reference,
      '--',
      '-c',
      'ls /sys/class/net',
    ]);
    const host = await readdir('/sys/class/net');
    expect(done.stdout.trim().split('\n').sort()).toEqual(host.sort());
  });
});

describe('limits, which podman can’t set here', () => {
  const read = (...files: string[]) =>
    `cat ${files.map((file) => `/sys/fs/cgroup/${file}`).join(' ')} 2>/dev/null`;

  test('--memory ends the command that takes more, with 137 and the reason', async () => {
    const command = ['/bin/dd', 'if=/dev/zero', 'of=/dev/null', 'bs=256M', 'count=1'];
    const { code, stderr } = await sandbox.run([
      'run',
      '--memory',
      '16m',
      '--entrypoint=',
      image.reference,
      '--',
      ...command,
    ]);
    expect(code).toBe(137);
    expect(stderr).toContain('out of memory');
  });

  test.each([
    ['--memory', '64m', read('memory.max', 'memory/memory.limit_in_bytes'), String(64 << 20)],
    ['--cpus', '0.5', read('cpu.max', 'cpu/cpu.cfs_quota_us'), '50000'],
    ['--pids-limit', '7', read('pids.max', 'pids/pids.max'), '7'],
    ['--pids-limit', '-1', read('pids.max', 'pids/pids.max'), 'max'],
  ])('%s %s', async (flag, value, script, expected) => {
    const { stdout } = await sandbox.run([
      'run',
      `${flag}=${value}`,
      ...SH,
      image.reference,
      '--',
      '-c',
      script,
    ]);
    expect(stdout.split(/\s/)[0]).toBe(expected);
  });

  test('what the machine has no control groups for is said on stderr, and shown with the container', async () => {
    await using without = await Sandbox.make();
    const hidden = ['unshare', '--mount', 'sh', '-c', 'umount -R /sys/fs/cgroup && exec "$@"', 'sh'];
    const imgcred = async (...args: string[]) => {
      const child = Bun.spawn([...hidden, EXECUTABLE, ...args], {
        cwd: '/',
        env: { PATH: process.env.PATH ?? '', IMGCRED_DATA_DIR: without.dataDirectory },
        stdout: 'pipe',
        stderr: 'pipe',
      });
      const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text()]);
      return { stdout, stderr, code: await child.exited };
    };
    const run = await imgcred(
      'run',
      '--json',
      '--name',
      'free',
      ...SH,
      image.reference,
      '--',
      '-c',
      'exit 3',
    );
    expect(run.code).toBe(3);
    expect(run.stderr).toContain('imgcred: warning: no control group can be written to');
    const { id } = JSON.parse(run.stdout);
    const shown = JSON.parse((await without.run(['container', 'show', id])).stdout);
    expect(shown.fetch.warnings).toEqual([expect.stringContaining('without any limit')]);
    const refused = await imgcred('run', '--memory', '64m', ...SH, image.reference, '--', '-c', 'true');
    expect(refused).toMatchObject({ code: 125, stdout: '' });
    expect(refused.stderr).toContain("no writable 'memory' control group");
  }, 30_000);

  test('--stop-timeout is what lies between the stop signal and SIGKILL', async () => {
    const script = 'trap "echo asked" TERM; echo up; while :; do sleep 0.05; done';
    const started = await sandbox.run([
      'run',
      '-d',
      '--stop-timeout',
      '0.3',
      ...SH,
      image.reference,
      '--',
      '-c',
      script,
    ]);
    const id = started.stdout.trim();
    await firstOutput(sandbox, id, 'up');
    await sandbox.run(['container', 'stop', id]);
    expect((await sandbox.run(['container', 'wait', id])).code).toBe(137);
    expect((await sandbox.run(['container', 'logs', id])).stdout).toContain('asked');
  });
});

describe('what a container is called', () => {
  test('--name and --label stay with it; a name is free again after its container', async () => {
    const named = [
      'run',
      '-d',
      '--name',
      'web',
      '--label',
      'a=1',
      '-l',
      'b',
      ...SH,
      image.reference,
      '--',
      '-c',
    ];
    const first = await sandbox.run([...named, 'echo up; sleep 600']);
    await firstOutput(sandbox, first.stdout.trim(), 'up');
    const shown = JSON.parse((await sandbox.run(['container', 'show', 'web'])).stdout);
    expect(shown).toMatchObject({
      id: first.stdout.trim(),
      name: 'web',
      overrides: { labels: { a: '1', b: '' } },
    });
    const taken = await sandbox.run([...named, 'true']);
    expect(taken.code).toBe(125);
    expect(taken.stderr).toContain('web');
    await sandbox.run(['container', 'rm', '--force', 'web']);
    expect((await sandbox.run([...named, 'true'])).code).toBe(0);
  });
});
