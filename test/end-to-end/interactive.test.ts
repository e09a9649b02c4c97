import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { EXECUTABLE, firstOutput, Sandbox, type Server } from '../fixtures/executable/index.ts';
import { TerminalProgram } from '../fixtures/executable/terminal.ts';
import { busyboxLayer, layerOf } from '../fixtures/images/index.ts';
import { type PushedImage, Pusher, type RegistryFixture, startRegistry } from '../fixtures/registry/index.ts';

// Some of them run a dozen commands, each a process of its own: the five seconds that a test has without this are
// not enough on a busy machine.
setDefaultTimeout(60_000);

let registry: RegistryFixture;
let image: PushedImage;
let sandbox: Sandbox;
let server: Server;

beforeAll(async () => {
  registry = await startRegistry();
  const applets = 'mkdir -p bin; for name in stty tty tr kill test; do ln -s busybox bin/$name; done';
  image = await new Pusher(registry).image({
    repository: 'interactive/app',
    tag: '1',
    layers: [await busyboxLayer(), await layerOf(applets)],
    config: { config: { Env: ['PATH=/bin', 'FROM_IMAGE=yes'] } },
  });
  sandbox = await Sandbox.make();
  server = await sandbox.serve();
  expect(await sandbox.run(['image', 'add', image.reference])).toMatchObject({ code: 0 });
}, 60_000);

afterAll(async () => {
  await sandbox?.[Symbol.asyncDispose]();
  await registry?.stop();
}, 60_000);

const environment = (): Record<string, string> => ({
  PATH: process.env.PATH ?? '',
  HOME: sandbox.directory,
  IMGCRED_DATA_DIR: sandbox.dataDirectory,
});
const onTerminal = (args: readonly string[], size: { rows?: number; columns?: number } = {}) =>
  new TerminalProgram([EXECUTABLE, ...args], { env: environment(), ...size });
const shell = (script: string) => [image.reference, '--', '/bin/sh', '-c', script];

/** A container that runs until it is ended. @returns its id */
async function started(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await sandbox.run(['run', '--detach', ...args]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  const id = stdout.trim();
  await firstOutput(sandbox, id, 'up');
  return id;
}

describe('imgcred run -i', () => {
  test('passes its input on to the end of it, and each stream back as it was', async () => {
    const bytes = Buffer.from(crypto.getRandomValues(new Uint8Array(60_000)).toHex().repeat(20));
    const script = 'sha256sum; echo err >&2; exit 7';
    const child = await sandbox.run(['run', '-i', ...shell(script)], { stdin: bytes.toString() });
    const digest = new Bun.CryptoHasher('sha256').update(bytes).digest('hex');
    expect(child).toEqual({ code: 7, stdout: `${digest}  -\n`, stderr: 'err\n' });
  });

  test('misses nothing of a command that ends at once', async () => {
    for (let time = 0; time < 3; time++) {
      const done = await sandbox.run(['run', '-i', ...shell('echo first; echo last >&2')]);
      expect(done).toEqual({ code: 0, stdout: 'first\n', stderr: 'last\n' });
    }
  });

  test('exits with 127 and says why when there is no such command', async () => {
    const { code, stderr } = await sandbox.run(['run', '-i', image.reference, '--', '/bin/nonesuch']);
    expect(code).toBe(127);
    expect(stderr).toContain('/bin/nonesuch');
  });

  test('works without a server, too', async () => {
    const data = ['--data-dir', `${sandbox.directory}/alone`];
    await sandbox.run(['image', 'add', image.reference, ...data]);
    const done = await sandbox.run(['run', '-i', ...data, ...shell('tr a-z A-Z')], { stdin: 'hello' });
    expect(done).toEqual({ code: 0, stdout: 'HELLO', stderr: '' });
  });

  test('makes the command wait while nobody reads its output', async () => {
    const id = await started(...shell('echo up; sleep 600'));
    const script = 'dd if=/dev/zero bs=64k count=512 2>/dev/null; touch /tmp/written';
    const child = Bun.spawn([EXECUTABLE, 'exec', id, '--', '/bin/sh', '-c', script], {
      cwd: '/',
      env: environment(),
      stdout: 'pipe',
    });
    const reader = child.stdout.getReader();
    let bytes = (await reader.read()).value?.length ?? 0;
    // Two commands later it would long have written 32 MiB.
    for (const _ of [1, 2]) {
      const there = await sandbox.run(['exec', id, '--', '/bin/test', '-e', '/tmp/written']);
      expect(there.code).toBe(1);
    }
    for (let more = await reader.read(); !more.done; more = await reader.read()) bytes += more.value.length;
    expect(bytes).toBe(512 * 65_536);
    expect(await child.exited).toBe(0);
  });
});

describe('imgcred run -it', () => {
  test('gives the command a terminal of our size, and follows its changes', async () => {
    await using program = onTerminal(
      [
        'run',
        '-it',
        ...shell('stty size; trap "stty size; exit 3" WINCH; echo ready; while :; do sleep 0.05; done'),
      ],
      { rows: 33, columns: 91 },
    );
    await program.sees('33 91');
    await program.sees('ready');
    program.resize(120, 50);
    await program.sees('50 120');
    expect(await program.exited).toBe(3);
  });

  test('passes every key on, ^C and ^D too', async () => {
    await using program = onTerminal([
      'run',
      '-it',
      ...shell('trap "echo interrupted" INT; echo ready; cat; echo over'),
    ]);
    await program.sees('ready');
    program.type('\x03');
    await program.sees('interrupted');
    program.type('\x04');
    expect(await program.exited).toBe(0);
  });

  test('leaves the container by ctrl-p ctrl-q, and attach comes back to it', async () => {
    await using program = onTerminal([
      'run',
      '-it',
      '--name',
      'left',
      ...shell('echo ready; read x; echo got $x; exit 9'),
    ]);
    await program.sees('ready');
    program.type('\x10\x11');
    await program.sees('imgcred attach ctr_');
    expect(await program.exited).toBe(0);
    await using again = onTerminal(['attach', 'left']);
    // Nothing tells that it is attached: what is typed meanwhile is kept.
    again.type('something\r');
    await again.sees('got something');
    expect(await again.exited).toBe(9);
  });

  test('passes ctrl-p on when another key follows, and obeys --detach-keys', async () => {
    await using program = onTerminal([
      'run',
      '-it',
      '--detach-keys',
      'ctrl-x',
      ...shell('echo ready; read x; echo got $x'),
    ]);
    await program.sees('ready');
    program.type('a\x10\x11b\r');
    await program.sees('got a');
    expect(await program.exited).toBe(0);
  });

  for (const [what, end] of [
    ['an end of the command', async (program: TerminalProgram) => program.type('x\r')],
    ['the detach keys', async (program: TerminalProgram) => program.type('\x10\x11')],
  ] as const) {
    test(`leaves the terminal as it was after ${what}`, async () => {
      const command = `'${EXECUTABLE}' run -it ${image.reference} -- /bin/sh -c 'stty -echo; echo ready; read x'`;
      const script = `before=$(stty -g); ${command}; after=$(stty -g); [ "$before" = "$after" ] && echo as-it-was`;
      await using program = new TerminalProgram(['sh', '-c', script], { env: environment() });
      await program.sees('ready');
      await end(program);
      await program.sees('as-it-was');
    });
  }

  test('leaves the terminal as it was when the server is killed meanwhile', async () => {
    await using other = await Sandbox.make();
    const second = await other.serve();
    await other.run(['image', 'add', image.reference]);
    const env = { ...environment(), IMGCRED_DATA_DIR: other.dataDirectory, HOME: other.directory };
    const command = `'${EXECUTABLE}' run -it ${image.reference} -- /bin/sh -c 'echo ready; read x'`;
    const script = `before=$(stty -g); ${command}; echo code $?; after=$(stty -g); [ "$before" = "$after" ] && echo as-it-was`;
    await using program = new TerminalProgram(['sh', '-c', script], { env });
    await program.sees('ready');
    await second.stop('SIGKILL');
    await program.sees('as-it-was');
    expect(program.shown).toContain('broke');
    expect(program.shown).toContain('code 125');
    // For the container, which goes on.
    await other.serve();
  });
});

describe('imgcred exec', () => {
  let id: string;
  beforeAll(async () => {
    id = await started(
      '--env',
      'MINE=1',
      '--workdir',
      '/root',
      ...shell('echo up; trap "exit 0" TERM; while :; do sleep 1; done'),
    );
  });

  test.each([
    ['its own code', ['/bin/sh', '-c', 'exit 42'], 42],
    ['0', ['/bin/true'], 0],
    ['127 for a command that does not exist', ['/bin/nonesuch'], 127],
    ['126 for a file that can’t be executed', ['/etc/passwd'], 126],
    ['128 and the signal’s number', ['/bin/sh', '-c', 'kill -9 $$'], 137],
  ])('exits with %s', async (_, command, code) => {
    expect((await sandbox.run(['exec', id, '--', ...command])).code).toBe(code);
  });

  test('exits with 125 when the container does not exist, or does not run', async () => {
    const none = await sandbox.run(['exec', 'nonesuch', '--', '/bin/true']);
    expect(none).toMatchObject({ code: 125, stdout: '' });
    expect(none.stderr).toContain('nonesuch');
    const ended = await sandbox.run(['run', '--json', image.reference, '--', '/bin/true']);
    const late = await sandbox.run(['exec', JSON.parse(ended.stdout).id, '--', '/bin/true']);
    expect(late.code).toBe(125);
    expect(late.stderr).toContain('exited');
  });

  test('gives the container’s environment, with user, directory and variables as told', async () => {
    const plain = await sandbox.run([
      'exec',
      id,
      '--',
      '/bin/sh',
      '-c',
      'echo $MINE $FROM_IMAGE $PWD; id -u',
    ]);
    expect(plain.stdout).toBe('1 yes /root\n0\n');
    const told = ['exec', '-e', 'MINE=2', '-u', 'app', '-w', '/tmp', id, '--', '/bin/sh', '-c'];
    expect((await sandbox.run([...told, 'echo $MINE $PWD $(id -un) $HOME'])).stdout).toBe(
      '2 /tmp app /home/app\n',
    );
  });

  test('keeps the streams apart, and passes the input on with -i', async () => {
    const both = await sandbox.run(['exec', id, '--', '/bin/sh', '-c', 'echo out; echo err >&2']);
    expect(both).toEqual({ code: 0, stdout: 'out\n', stderr: 'err\n' });
    const echoed = await sandbox.run(['exec', '-i', id, '--', '/bin/cat'], { stdin: 'in\n' });
    expect(echoed.stdout).toBe('in\n');
    // Without -i there is nothing to read.
    expect((await sandbox.run(['exec', id, '--', '/bin/cat'], { stdin: 'in\n' })).stdout).toBe('');
  });

  test('gives a terminal with -t', async () => {
    await using program = onTerminal(['exec', '-it', id, '--', '/bin/sh'], { rows: 41, columns: 100 });
    program.type('stty size; exit 4\r');
    await program.sees('41 100');
    expect(await program.exited).toBe(4);
  });
});

describe('over the network', () => {
  const remote = async (role: string, ...more: string[]) => {
    const made = await sandbox.run([
      'token',
      'create',
      '--role',
      role,
      '--json',
      ...more,
      `t-${crypto.randomUUID().slice(0, 8)}`,
    ]);
    expect(made.stderr).toBe('');
    const file = `${sandbox.directory}/${crypto.randomUUID()}.token`;
    await Bun.write(file, JSON.parse(made.stdout).token);
    return ['--server', server.url, '--token-file', file];
  };

  test('a runner’s token is enough, and the container’s code comes through', async () => {
    const done = await sandbox.run(['run', '-i', ...(await remote('runner')), ...shell('cat; exit 6')], {
      stdin: 'far',
    });
    expect(done).toEqual({ code: 6, stdout: 'far', stderr: '' });
  });

  test('no token, a worker’s and another workspace’s see nothing', async () => {
    const id = await started(...shell('echo up; sleep 600'));
    const route = `${server.url.replace('http', 'ws')}/v1/containers/${id}/exec`;
    const refused = await fetch(route.replace('ws', 'http'), {
      headers: { upgrade: 'websocket', connection: 'upgrade' },
    });
    expect(refused.status).toBe(401);
    await sandbox.run(['workspace', 'create', 'elsewhere']);
    const other = await sandbox.run([
      'exec',
      ...(await remote('runner', '--workspace', 'elsewhere')),
      id,
      '--',
      '/bin/true',
    ]);
    expect(other.code).toBe(125);
    expect(other.stderr).toContain(id);
    const worker = await sandbox.run(['exec', ...(await remote('worker')), id, '--', '/bin/true']);
    expect(worker).toMatchObject({ code: 125, stdout: '' });
    expect(worker.stderr).toContain('runner');
  });

  test('a runner does not get into a container that an admin gave the host to', async () => {
    const mount = `type=bind,source=${sandbox.directory},target=/host`;
    const id = await started('--mount', mount, '-i', ...shell('echo up; sleep 600'));
    const runner = await remote('runner');
    for (const command of [
      ['exec', ...runner, id, '--', '/bin/true'],
      ['attach', ...runner, id],
    ]) {
      const refused = await sandbox.run(command);
      expect(refused.code).not.toBe(0);
      expect(refused.stderr).toContain('more than this token may ask for');
    }
    const admin = await sandbox.run(['exec', id, '--', '/bin/true']);
    expect(admin).toEqual({ code: 0, stdout: '', stderr: '' });
  });
});

describe('signals that imgcred run gets', () => {
  const running = async (args: readonly string[]) => {
    const child = Bun.spawn([EXECUTABLE, 'run', ...args], { cwd: '/', env: environment(), stdout: 'pipe' });
    const reader = child.stdout.getReader();
    const decoder = new TextDecoder();
    let text = '';
    const sees = async (wanted: string) => {
      while (!text.includes(wanted)) {
        const { value, done } = await reader.read();
        if (done) throw new Error(`it ended with ${text}`);
        text += decoder.decode(value);
      }
    };
    return { child, sees };
  };

  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGUSR1', 'SIGWINCH'] as const) {
    test(`go to the container: ${signal}`, async () => {
      const name = signal.slice(3);
      const script = `trap 'echo got ${name}; exit 11' ${name}; echo ready; while :; do sleep 0.05; done`;
      const { child, sees } = await running(shell(script));
      await sees('ready');
      child.kill(signal);
      await sees(`got ${name}`);
      expect(await child.exited).toBe(11);
    });
  }

  test('stop a container that has ignored two of them', async () => {
    const { child, sees } = await running([
      '--stop-timeout',
      '0',
      ...shell('trap "echo again" TERM; echo ready; while :; do sleep 0.05; done'),
    ]);
    await sees('ready');
    for (const seen of ['again\n', 'again\nagain\n']) {
      child.kill('SIGTERM');
      await sees(seen);
    }
    child.kill('SIGTERM');
    expect(await child.exited).toBe(137);
  });

  test('stay with imgcred with --sig-proxy=false', async () => {
    const { child, sees } = await running([
      '--name',
      'unmoved',
      '--sig-proxy',
      'false',
      ...shell('echo ready; sleep 600'),
    ]);
    await sees('ready');
    child.kill('SIGTERM');
    await child.exited;
    expect(child.signalCode).toBe('SIGTERM');
    expect(JSON.parse((await sandbox.run(['container', 'show', 'unmoved'])).stdout).state).toBe('running');
  });
});
