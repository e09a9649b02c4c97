import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { readFileSync } from 'node:fs';
import { Cluster, eventually, type RoleProcess } from '../fixtures/cluster/index.ts';
import { EXECUTABLE, Sandbox } from '../fixtures/executable/index.ts';
import { TerminalProgram } from '../fixtures/executable/terminal.ts';
import { busyboxLayer, layerOf } from '../fixtures/images/index.ts';
import {
  type Certificates,
  makeCertificates,
  type PushedImage,
  Pusher,
  type RegistryFixture,
  startRegistry,
} from '../fixtures/registry/index.ts';

// Some of them run a dozen commands, each a process of its own: the five seconds that a test has without this are
// not enough on a busy machine.
setDefaultTimeout(60_000);

let registry: RegistryFixture;
let image: PushedImage;
let certificates: Certificates;
let cluster: Cluster;
let gateway: RoleProcess;
let scheduler: RoleProcess;
let worker: RoleProcess;
let sandbox: Sandbox;

const tls = () => [
  '--listen',
  '127.0.0.1:0',
  '--tls-cert',
  certificates.certFile,
  '--tls-key',
  certificates.keyFile,
];

async function startGateway(): Promise<void> {
  gateway = await cluster.start('gateway', { args: tls() });
}

const startScheduler = () => cluster.start('scheduler', { args: ['--listen', '127.0.0.1:0'] });

/** A worker that reaches its gateway through the door, and nothing else of ours. */
const startWorker = async () =>
  cluster.start('worker', {
    data: 'worker',
    args: [
      ...['--gateway', `https://${cluster.door.address}`, '--gateway-ca', certificates.caFile],
      ...['--token-file', await cluster.workerToken(), '--worker-name', 'far'],
    ],
  });

beforeAll(async () => {
  registry = await startRegistry();
  const applets = 'mkdir -p bin; for name in stty tr kill test; do ln -s busybox bin/$name; done';
  image = await new Pusher(registry).image({
    repository: 'sessions/app',
    tag: '1',
    layers: [await busyboxLayer(), await layerOf(applets)],
    config: { config: { Env: ['PATH=/bin', 'FROM_IMAGE=yes'] } },
  });
  certificates = await makeCertificates();
  sandbox = await Sandbox.make();
  cluster = await Cluster.make('--insecure-registry', registry.host, '--lease', '8');
  await startGateway();
  scheduler = await startScheduler();
  worker = await startWorker();
  await cluster.call('POST', '/v1/images', { reference: image.reference });
}, 120_000);

afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
  await sandbox?.[Symbol.asyncDispose]();
  await certificates?.[Symbol.asyncDispose]();
  await registry?.stop();
}, 120_000);

const data = () => ['--data-dir', cluster.path('data')];
const imgcred = (command: string, args: readonly string[], stdin?: string) =>
  sandbox.run([command, ...data(), ...args], stdin === undefined ? {} : { stdin });
const shell = (script: string) => [image.reference, '--', '/bin/sh', '-c', script];
const environment = () => ({ PATH: process.env.PATH ?? '', HOME: sandbox.directory });
const onTerminal = (
  command: string,
  args: readonly string[],
  size: { rows?: number; columns?: number } = {},
) => new TerminalProgram([EXECUTABLE, command, ...data(), ...args], { env: environment(), ...size });

/** A container that has written `up`. @returns its id */
async function started(script: string, ...options: string[]): Promise<string> {
  const { stdout, stderr } = await imgcred('run', ['-d', ...options, ...shell(`echo up; ${script}`)]);
  const id = stdout.trim();
  if (id === '') throw new Error(stderr);
  await eventually('its first line', async () =>
    (await cluster.output(id)).includes('up') ? true : 'not yet',
  );
  return id;
}

/** A command that goes on meanwhile. */
function begun(command: string, args: readonly string[]) {
  const child = Bun.spawn([EXECUTABLE, command, ...data(), ...args], {
    cwd: '/',
    env: environment(),
    stdin: 'pipe',
    stdout: 'pipe',
    stderr: 'pipe',
  });
  const reader = child.stdout.getReader();
  const errors = child.stderr.text();
  let seen = '';
  return {
    child,
    errors,
    reader,
    async sees(wanted: string) {
      while (!seen.includes(wanted)) {
        const { value, done } = await reader.read();
        if (done) throw new Error(`it ended with ${seen} ${await errors}`);
        seen += Buffer.from(value).toString();
      }
    },
  };
}

describe('a container on a worker that only calls, by TLS, gateway and scheduler in two processes', () => {
  test('takes the input of run -i to its end, and gives each stream back as it was', async () => {
    const bytes = Buffer.from(crypto.getRandomValues(new Uint8Array(60_000)).toHex().repeat(20)).toString();
    const done = await imgcred('run', ['-i', ...shell('sha256sum; echo err >&2; exit 7')], bytes);
    const digest = new Bun.CryptoHasher('sha256').update(bytes).digest('hex');
    expect(done).toEqual({ code: 7, stdout: `${digest}  -\n`, stderr: 'err\n' });
  }, 30_000);

  test('loses nothing of a command that ends at once', async () => {
    for (let time = 0; time < 3; time++) {
      const done = await imgcred('run', ['-i', ...shell('echo first; echo last >&2')]);
      expect(done).toEqual({ code: 0, stdout: 'first\n', stderr: 'last\n' });
    }
  }, 30_000);

  test('gives run -it a terminal of our size, follows its changes, and is left and come back to', async () => {
    const script =
      'stty size; trap "stty size" WINCH; echo ready; while :; do read x && break; done; echo got $x; exit 9';
    await using program = onTerminal('run', ['-it', '--name', 'left', ...shell(script)], {
      rows: 33,
      columns: 91,
    });
    await program.sees('33 91');
    await program.sees('ready');
    program.resize(120, 50);
    await program.sees('50 120');
    program.type('\x10\x11');
    await program.sees('imgcred attach ctr_');
    expect(await program.exited).toBe(0);
    await using again = onTerminal('attach', ['left']);
    again.type('something\r');
    await again.sees('got something');
    expect(await again.exited).toBe(9);
  }, 30_000);

  test('runs a second command with its environment, input, streams, user and terminal', async () => {
    const id = await started('exec sleep 600', '--env', 'MINE=1');
    const script = 'cat; echo $MINE $FROM_IMAGE $TOLD $(id -un); echo err >&2; exit 42';
    const done = await imgcred(
      'exec',
      ['-i', '-e', 'TOLD=2', '-u', 'app', id, '--', '/bin/sh', '-c', script],
      'in\n',
    );
    expect(done).toEqual({ code: 42, stdout: 'in\n1 yes 2 app\n', stderr: 'err\n' });
    await using program = onTerminal('exec', ['-it', id, '--', '/bin/sh'], { rows: 41, columns: 100 });
    program.type('stty size; exit 4\r');
    await program.sees('41 100');
    expect(await program.exited).toBe(4);
  }, 30_000);

  test.each([
    ['127 for a command that does not exist', ['/bin/nonesuch'], 127],
    ['126 for a file that can’t be executed', ['/etc/passwd'], 126],
    ['128 and the signal’s number', ['/bin/sh', '-c', 'kill -9 $$'], 137],
  ])('ends an exec with %s', async (_, command, code) => {
    const id = await started('exec sleep 600');
    expect((await imgcred('exec', [id, '--', ...command])).code).toBe(code);
  });

  test('gets signals, and tells what it uses', async () => {
    const id = await started(`trap 'echo one; exit 9' USR1; while :; do :; done`, '--memory', '64m');
    const stats = await sandbox.run(['container', 'stats', ...data(), '--no-stream', '--json', id]);
    const [sample] = JSON.parse(stats.stdout);
    expect(sample).toMatchObject({ id, memory_limit_bytes: 64 << 20 });
    expect(sample.cpu_ms).toBeGreaterThan(0);
    expect(sample.processes).toBeGreaterThanOrEqual(1);
    const unknown = await sandbox.run(['container', 'kill', ...data(), '-s', 'NOSUCH', id]);
    expect(unknown.code).toBe(2);
    await sandbox.run(['container', 'kill', ...data(), '--signal', 'USR1', id]);
    expect(await cluster.ended(id)).toMatchObject({ state: 'exited', exit_code: 9 });
    expect(await cluster.output(id)).toBe('up\none\n');
  });

  test('gets what imgcred run gets', async () => {
    const script = `trap 'echo got TERM; exit 11' TERM; echo ready; while :; do sleep 0.05; done`;
    const run = begun('run', shell(script));
    await run.sees('ready');
    run.child.kill('SIGTERM');
    await run.sees('got TERM');
    expect(await run.child.exited).toBe(11);
  });

  test('waits while nobody reads its output, and no process between keeps it', async () => {
    const id = await started('exec sleep 600');
    const script = 'dd if=/dev/zero bs=64k count=512 2>/dev/null; touch /tmp/written';
    const exec = begun('exec', [id, '--', '/bin/sh', '-c', script]);
    let bytes = (await exec.reader.read()).value?.length ?? 0;
    const before = memoryOf(gateway.pid);
    // Two commands later it would long have written 32 MiB.
    for (const _ of [1, 2]) {
      expect((await imgcred('exec', [id, '--', '/bin/test', '-e', '/tmp/written'])).code).toBe(1);
    }
    expect(memoryOf(gateway.pid) - before).toBeLessThan(16 << 20);
    for (let more = await exec.reader.read(); !more.done; more = await exec.reader.read())
      bytes += more.value.length;
    expect(bytes).toBe(512 * 65_536);
    expect(await exec.child.exited).toBe(0);
  }, 30_000);

  test('makes whoever writes wait while it does not read, and no process between keeps it', async () => {
    const id = await started('exec sleep 600');
    const exec = begun('exec', [
      '-i',
      id,
      '--',
      '/bin/sh',
      '-c',
      'echo ready; while [ ! -e /tmp/go ]; do sleep 0.05; done; wc -c',
    ]);
    await exec.sees('ready');
    const before = memoryOf(gateway.pid);
    const piece = new Uint8Array(1 << 20);
    const writing = (async () => {
      for (let at = 0; at < 32; at++) {
        exec.child.stdin.write(piece);
        await exec.child.stdin.flush();
      }
      await exec.child.stdin.end();
    })();
    for (const _ of [1, 2]) await imgcred('exec', [id, '--', '/bin/test', '-e', '/tmp/written']);
    expect(memoryOf(gateway.pid) - before).toBeLessThan(16 << 20);
    await imgcred('exec', [id, '--', '/bin/sh', '-c', '> /tmp/go']);
    await writing;
    await exec.sees(String(32 << 20));
    expect(await exec.child.exited).toBe(0);
  }, 30_000);

  test('is not spoken to by a runner where an admin gave it the host', async () => {
    const id = await started(
      'exec sleep 600',
      '-i',
      '--mount',
      `type=bind,source=${cluster.path('data')},target=/host`,
    );
    const { token } = await cluster.call<{ token: string }>('POST', '/v1/tokens', {
      name: 'runner',
      role: 'runner',
    });
    await Bun.write(cluster.path('runner.token'), token);
    const far = ['--server', `https://${gateway.listen}`, '--server-ca', certificates.caFile];
    const runner = [...far, '--token-file', cluster.path('runner.token')];
    for (const command of [
      ['exec', ...runner, id, '--', '/bin/true'],
      ['attach', ...runner, id],
    ]) {
      const refused = await sandbox.run(command);
      expect(refused.code).not.toBe(0);
      expect(refused.stderr).toContain('more than this token may ask for');
    }
  }, 30_000);
});

describe('what is killed between somebody and a container on another machine', () => {
  const counting = 'n=0; while :; do n=$((n+1)); echo $n; sleep 0.05; done';

  test('the gateway: attach and exec end with an error, the container and the exec’d command go on', async () => {
    const id = await started(counting);
    const attached = begun('attach', [id]);
    await attached.sees('\n');
    const mark = 'echo begun; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo over > /tmp/over';
    const exec = begun('exec', [id, '--', '/bin/sh', '-c', mark]);
    await exec.sees('begun');
    await gateway.kill();
    expect(await attached.child.exited).toBe(125);
    expect(await attached.errors).toContain('broke');
    expect(await exec.child.exited).toBe(125);
    await startGateway();
    expect(await cluster.show(id)).toMatchObject({ state: 'running', attempt: 1 });
    const through = await imgcred('exec', [
      id,
      '--',
      '/bin/sh',
      '-c',
      '> /tmp/go; until [ -e /tmp/over ]; do sleep 0.05; done',
    ]);
    expect(through).toEqual({ code: 0, stdout: '', stderr: '' });
    const again = begun('attach', [id]);
    await again.sees('\n');
    again.child.kill('SIGKILL');
  }, 60_000);

  test('the scheduler: nobody notices', async () => {
    const id = await started('cat', '-i');
    await using program = onTerminal('exec', ['-it', id, '--', '/bin/sh']);
    program.type('echo one$((1))\r');
    await program.sees('one1');
    await scheduler.kill();
    program.type('echo two$((2))\r');
    await program.sees('two2');
    // What is asked for while it is away is there when it is back.
    const late = imgcred('exec', [id, '--', '/bin/echo', 'late']);
    scheduler = await startScheduler();
    expect(await late).toEqual({ code: 0, stdout: 'late\n', stderr: '' });
    program.type('exit 3\r');
    expect(await program.exited).toBe(3);
  }, 60_000);

  test('the worker: attach and exec end with an error, and the next worker takes over', async () => {
    const id = await started(counting);
    const attached = begun('attach', [id]);
    await attached.sees('\n');
    const exec = begun('exec', [id, '--', '/bin/sh', '-c', 'echo begun; exec sleep 600']);
    await exec.sees('begun');
    await worker.kill();
    expect(await attached.child.exited).toBe(125);
    expect(await attached.errors).toContain('the connection to the worker far broke');
    expect(await exec.child.exited).toBe(125);
    worker = await startWorker();
    const after = await imgcred('exec', [id, '--', '/bin/echo', 'there']);
    expect(after).toEqual({ code: 0, stdout: 'there\n', stderr: '' });
    expect(await cluster.show(id)).toMatchObject({ state: 'running', attempt: 1 });
  }, 60_000);

  test('run -i, when the connection breaks, leaves the container alone', async () => {
    const run = begun('run', ['-i', '--name', 'alone', ...shell('echo ready; exec sleep 600')]);
    await run.sees('ready');
    await worker.kill();
    expect(await run.child.exited).toBe(125);
    expect(await run.errors).toContain('broke');
    worker = await startWorker();
    const { id } = await cluster.show('alone');
    const there = await imgcred('exec', [id, '--', '/bin/echo', 'there']);
    expect(there).toEqual({ code: 0, stdout: 'there\n', stderr: '' });
    expect(await cluster.show('alone')).toMatchObject({ state: 'running', attempt: 1 });
  }, 60_000);

  test('a worker that does not come: it is said within some seconds', async () => {
    const id = await started('exec sleep 600');
    process.kill(worker.pid, 'SIGSTOP');
    try {
      const exec = await imgcred('exec', [id, '--', '/bin/true']);
      expect(exec.code).toBe(125);
      expect(exec.stderr).toContain('the worker far does not come for a session');
    } finally {
      process.kill(worker.pid, 'SIGCONT');
    }
  }, 60_000);
});

test('whatever is killed, and whenever, no exec hangs, and the container is none the worse', async () => {
  const id = await started('exec sleep 600');
  const done = new AbortController();
  const killing = (async () => {
    for (let kills = 0; kills < 9; kills++) {
      // Not synchronisation: the moments at which something dies are to be as different as they can be.
      await Bun.sleep(100 + Math.random() * 500);
      if (kills % 3 === 0) {
        await gateway.kill();
        await startGateway();
      } else if (kills % 3 === 1) {
        await scheduler.kill();
        scheduler = await startScheduler();
      } else {
        await worker.kill();
        worker = await startWorker();
      }
    }
    done.abort();
  })();
  const codes = new Map<number, number>();
  const asking = async () => {
    while (!done.signal.aborted) {
      const { code } = await imgcred('exec', [id, '--', '/bin/sh', '-c', 'exit 42']);
      codes.set(code, (codes.get(code) ?? 0) + 1);
    }
  };
  await Promise.all([killing, asking(), asking(), asking()]);
  expect([...codes.keys()].filter((code) => code !== 42 && code !== 125)).toEqual([]);
  const after = await imgcred('exec', [id, '--', '/bin/sh', '-c', 'exit 42']);
  expect(after.code).toBe(42);
  expect(await cluster.show(id)).toMatchObject({ state: 'running', attempt: 1 });
}, 120_000);

test('a stranger comes for no session', async () => {
  const route = `https://${gateway.listen}/v1/worker/session/${'0'.repeat(64)}`;
  const headers = { upgrade: 'websocket', connection: 'upgrade' };
  const ask = async (token?: string) => {
    const authorization: Record<string, string> =
      token === undefined ? {} : { authorization: `Bearer ${token}` };
    const ca = readFileSync(certificates.caFile, 'utf8');
    return (await fetch(route, { headers: { ...headers, ...authorization }, tls: { ca } })).status;
  };
  expect(await ask()).toBe(401);
  const tokenOf = async (role: string) =>
    (await cluster.call<{ token: string }>('POST', '/v1/tokens', { name: `stranger-${role}`, role })).token;
  expect(await ask(await tokenOf('operator'))).toBe(403);
  expect(await ask(await tokenOf('worker'))).toBe(404);
});

test('a worker that calls the scheduler itself comes for sessions by way of it', async () => {
  const direct = ['--gateway', `http://${scheduler.listen}`, '--worker-name', 'direct'];
  const token = ['--token-file', await cluster.workerToken()];
  await cluster.start('worker', { data: 'direct', args: [...direct, ...token] });
  const id = await started('exec sleep 600', '--worker-label', 'worker=direct');
  const bytes = 'x'.repeat(1 << 20);
  const through = await imgcred('exec', ['-i', id, '--', '/bin/sh', '-c', 'cat; exit 4'], bytes);
  expect(through).toEqual({ code: 4, stdout: bytes, stderr: '' });
  // What is for a gateway on the same data directory is for no worker.
  const link = `http://${scheduler.listen}/v1/scheduler/link`;
  const { token: worker } = await cluster.call<{ token: string }>('POST', '/v1/tokens', {
    name: 'curious',
    role: 'worker',
  });
  const headers = { upgrade: 'websocket', connection: 'upgrade', authorization: `Bearer ${worker}` };
  expect((await fetch(link, { headers })).status).toBe(404);
}, 60_000);

function memoryOf(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024;
}
