import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { EXECUTABLE, firstOutput, Sandbox } from '../fixtures/executable/index.ts';
import { TerminalProgram } from '../fixtures/executable/terminal.ts';
import { busyboxLayer } from '../fixtures/images/index.ts';
import {
  type FaultProxy,
  Pusher,
  type RegistryFixture,
  startFaultProxy,
  startRegistry,
} from '../fixtures/registry/index.ts';

// Some of them run a dozen commands, each a process of its own.
setDefaultTimeout(60_000);

const USER = 'newcomer';
const PASSWORD = 'first-steps-4711';
const CREDS = ['--creds-env', 'REGISTRY_USERNAME,REGISTRY_PASSWORD'];
const env = { REGISTRY_USERNAME: USER, REGISTRY_PASSWORD: PASSWORD };
const shape = z.looseObject({ id: z.string(), state: z.string(), exit_code: z.number().nullable() });

let registry: RegistryFixture;
let proxy: FaultProxy;
let image: string;
// One on which commands are their own server, one with `imgcred serve`.
let alone: Sandbox;
let served: Sandbox;

beforeAll(async () => {
  registry = await startRegistry({ htpasswd: { [USER]: PASSWORD } });
  proxy = await startFaultProxy(registry.url);
  const pushed = await new Pusher(registry, USER, PASSWORD).image({
    repository: 'first/app',
    tag: '1',
    layers: [await busyboxLayer()],
    config: { config: { Env: ['PATH=/bin'], Cmd: ['/bin/true'] } },
  });
  image = `${proxy.host}/first/app:1`;
  expect(pushed.layers.length).toBe(1);
  alone = await Sandbox.make();
  served = await Sandbox.make();
  await served.serve();
  for (const sandbox of [alone, served]) {
    const { stdout, code } = await sandbox.run(['image', 'add', image, ...CREDS], { env });
    expect(code).toBe(0);
    expect(stdout).toContain('  1 layer, ');
  }
}, 120_000);

afterAll(async () => {
  await served?.[Symbol.asyncDispose]();
  await alone?.[Symbol.asyncDispose]();
  await proxy?.stop();
  await registry?.stop();
}, 60_000);

const shell = (script: string) => [image, '--', '/bin/sh', '-c', script];
const deafFor = (seconds: number) =>
  `trap "sleep ${seconds}; exit 3" TERM; echo up; while :; do sleep 0.05; done`;
const DEAF = 'trap "" TERM; echo up; while :; do sleep 0.05; done';

async function started(name: string, script: string, ...options: string[]): Promise<string> {
  const { stdout } = await served.run(['run', '-d', '--name', name, ...options, ...shell(script)]);
  await firstOutput(served, stdout.trim(), 'up');
  return stdout.trim();
}

async function show(id: string, sandbox = served) {
  return shape.parse(JSON.parse((await sandbox.run(['container', 'show', id])).stdout));
}

describe('imgcred stop', () => {
  test('returns once the container has ended, so that it can be removed', async () => {
    await started('slow', deafFor(1));
    expect(await served.run(['stop', 'slow'])).toEqual({ code: 0, stdout: 'slow\n', stderr: '' });
    expect(await served.run(['rm', 'slow'])).toEqual({ code: 0, stdout: 'slow\n', stderr: '' });
  });

  test('waits for SIGKILL after the stop timeout', async () => {
    const id = await started('deaf', DEAF, '--stop-timeout', '0.3');
    expect(await served.run(['stop', 'deaf'])).toMatchObject({ code: 0 });
    expect(await show(id)).toMatchObject({ state: 'exited', exit_code: 137 });
  });

  test('sends SIGKILL sooner with --time', async () => {
    const id = await started('impatient', DEAF, '--stop-timeout', '3600');
    expect(await served.run(['stop', '-t', '0.2', 'impatient'])).toMatchObject({ code: 0 });
    expect(await show(id)).toMatchObject({ state: 'exited', exit_code: 137 });
  });

  test('stops the others where one can’t be, and tells of it by the exit code', async () => {
    const ids = [await started('one', deafFor(0)), await started('two', deafFor(0))];
    const stopped = await served.run(['stop', 'one', 'no-such', 'two']);
    expect(stopped.code).toBe(5);
    expect(stopped.stdout.split('\n').sort()).toEqual(['', 'one', 'two']);
    expect(stopped.stderr).toContain('no-such');
    for (const id of ids) expect(await show(id)).toMatchObject({ state: 'exited' });
    expect(await served.run(['rm', 'one', 'no-such', 'two'])).toMatchObject({ code: 5 });
    expect((await served.run(['ps', '-aq'])).stdout).not.toContain(ids[1] ?? '');
  });

  test('is left by Ctrl-C, and the container ends all the same', async () => {
    const id = await started('left', deafFor(2));
    const stop = Bun.spawn([EXECUTABLE, 'stop', 'left'], {
      cwd: '/',
      env: { PATH: process.env.PATH ?? '', IMGCRED_DATA_DIR: served.dataDirectory },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    while ((await show(id)).state === 'running') await Bun.sleep(20);
    stop.kill('SIGINT');
    await stop.exited;
    expect(stop.exitCode === 130 || stop.signalCode === 'SIGINT').toBe(true);
    expect((await served.run(['wait', id])).code).toBe(3);
  });
});

describe('where no server runs', () => {
  test('run --detach returns once the container runs, and later commands see to it', async () => {
    const run = await alone.run(['run', '-d', '--name', 'web', ...shell(deafFor(0))]);
    expect(run).toMatchObject({ code: 0, stderr: '' });
    const id = run.stdout.trim();
    expect(await show(id, alone)).toMatchObject({ state: 'running' });
    await firstOutput(alone, id, 'up');
    expect(await alone.run(['stop', 'web'])).toMatchObject({ code: 0, stdout: 'web\n' });
    expect(await show(id, alone)).toMatchObject({ state: 'exited', exit_code: 3 });
  });

  test('run --detach tells of a command that can’t be started, as podman does', async () => {
    const run = await alone.run(['run', '-d', image, '--', '/bin/no-such']);
    expect(run.code).toBe(127);
    expect(run.stderr).toContain('/bin/no-such');
  });

  test('a request that nobody can run says why it waits, and holds up no other command', async () => {
    const run = await alone.run(['run', '-d', '--name', 'waits', '--worker-label', 'zone=b', image]);
    expect(run.code).toBe(0);
    expect(run.stderr).toBe(`imgcred: ${run.stdout.trim()} waits: no worker has the label zone=b\n`);
    const listed = await alone.run(['ps']);
    expect(listed.code).toBe(0);
    expect(listed.stdout).toContain('no worker has the label zone=b');
    expect(await alone.run(['rm', '--force', 'waits'])).toMatchObject({ code: 0 });
  });

  test('a run in the foreground says on stderr why it waits', async () => {
    const run = Bun.spawn([EXECUTABLE, 'run', '--worker-label', 'zone=c', image], {
      cwd: '/',
      env: { PATH: process.env.PATH ?? '', IMGCRED_DATA_DIR: alone.dataDirectory },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let said = '';
    for await (const chunk of run.stderr) {
      said += Buffer.from(chunk).toString();
      if (said.includes('\n')) break;
    }
    expect(said).toContain(' waits: no worker has the label zone=c\n');
    run.kill('SIGINT');
    expect(await run.exited).toBe(130);
  });

  test('run --rm leaves nothing behind', async () => {
    const before = (await alone.run(['ps', '-aq'])).stdout;
    expect((await alone.run(['run', '--rm', ...shell('exit 4')])).code).toBe(4);
    expect((await alone.run(['ps', '-aq'])).stdout).toBe(before);
    const both = await alone.run(['run', '--rm', '-d', image]);
    expect(both.code).toBe(125);
    expect(both.stderr).toContain('--rm and --detach do not go together');
  });
});

describe('what can’t be is told with the option and what it wants', () => {
  const cases: [args: string[], code: number, message: string, hint: string][] = [
    [['logs', '--tail', 'x', 'web'], 2, '--tail x: must be a whole number from 0 on, or all', '--tail 100'],
    [['run', '-m', '1k', 'x'], 125, '-m 1k: must be a size of at least 4 MiB', '-m 512m'],
    [
      ['run', '--stop-timeout', '-1', 'x'],
      125,
      '--stop-timeout -1: must be a number of seconds from 0',
      '30',
    ],
    [['run', '--worker-label', 'x', 'x'], 125, '--worker-label x: must be KEY=VALUE', 'zone=b'],
    [['run', '-v', 'data:/data', 'x'], 125, 'there are no named volumes', '/srv/data:/data'],
    [['secret', 'rollback', 'a', 'x'], 2, 'VERSION x: must be a whole number from 1', 'VERSION 3'],
    [['serve', '--slots', '0'], 2, '--slots 0: must be at least 1', '--slots 64'],
    [['ps', '--format', 'json'], 2, 'imgcred container ls: there is no option --format', '--json'],
    [['--json=x', 'ps'], 2, 'imgcred: --json: options follow the command', 'imgcred ps --json'],
    [['pull', 'x'], 2, "imgcred: there is no command 'pull'", 'imgcred image add REFERENCE'],
    [['container', 'restart', 'x'], 2, "there is no command 'container restart'", 'imgcred run --restart'],
    [['drain', 'x'], 2, "there is no command 'drain'", "did you mean 'imgcred worker drain'?"],
    [['show', 'x'], 2, "there is no command 'show'", "'imgcred image show' or 'imgcred container show'"],
    [['container', 'nope'], 2, "there is no command 'container nope'", 'imgcred container --help'],
    [['container', 'lgos'], 2, "there is no command 'container lgos'", "'imgcred container logs'"],
    [
      ['serve', '--listen', 'x:99999'],
      2,
      '--listen x:99999: the port must be at most 65535',
      '127.0.0.1:7480',
    ],
    [['image', 'ls', '--config', '/none'], 2, 'there is no such file or directory', ''],
    [['secret', 'set', 'new', ...CREDS], 5, 'no secret "new"', '--registry HOST'],
    [['constructor'], 2, "there is no command 'constructor'", 'imgcred --help'],
    [['secret', 'frobnicate'], 2, "there is no command 'secret frobnicate'", 'imgcred secret --help'],
  ];
  for (const [args, code, message, hint] of cases) {
    test(`imgcred ${args.join(' ')}`, async () => {
      const finished = await alone.run(args, { env });
      expect(finished.code).toBe(code);
      const lines = finished.stderr.trimEnd().split('\n');
      expect(lines[0]).toContain(message);
      expect(lines[1] ?? '').toContain(hint);
      expect(lines.length).toBeLessThanOrEqual(2);
    });
  }

  test.each([
    ['--mount', 'type=bind,source=$/none,target=/t'],
    ['--volume', '$/none:/t'],
  ])('a source that is not there, by %s, is named before anything is made', async (option, value) => {
    const given = value.replace('$', alone.directory);
    const run = await alone.run(['run', '--json', option, given, image]);
    expect(run.code).toBe(125);
    expect(run.stderr).toContain(`the source ${join(alone.directory, 'none')} of the mount at /t`);
    expect(run.stderr).toContain(option);
    expect(run.stderr).not.toContain('crun');
    const { fetch, error } = z
      .looseObject({ fetch: z.unknown(), error: z.unknown() })
      .parse(JSON.parse(run.stdout));
    expect({ fetch, error }).toMatchObject({ fetch: null, error: { code: 'INVALID_INPUT' } });
  });

  test('the API says it in the same words', async () => {
    const post = async (body: object) => {
      const answer = await fetch('http://imgcred/v1/containers', {
        method: 'POST',
        unix: join(served.dataDirectory, 'imgcred.sock'),
        body: JSON.stringify(body),
      } as RequestInit);
      return z.object({ error: z.looseObject({ message: z.string() }) }).parse(await answer.json()).error
        .message;
    };
    const refused: [overrides: object, message: string][] = [
      [{ memory_bytes: 1024 }, 'overrides.memory_bytes: must be at least 4194304'],
      [{ cpus: 0 }, 'overrides.cpus: must be more than 0'],
      [{ pids_limit: 1.5 }, 'overrides.pids_limit: must be a whole number'],
      [{ network: 'bridge' }, 'overrides.network: must be none or host'],
      [{ user: '' }, 'overrides.user: must not be empty'],
      [{ read_only: 'yes' }, 'overrides.read_only: must be true or false'],
    ];
    for (const [overrides, message] of refused) expect(await post({ image, overrides })).toBe(message);
    expect(await post({})).toBe('image: is missing');
  });
});

describe('help', () => {
  test('goes to stdout where it was asked for, and to stderr with exit code 2 where something is missing', async () => {
    for (const args of [['--help'], ['help'], ['image', '--help'], ['help', 'image']]) {
      const { code, stdout, stderr } = await alone.run(args);
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
      expect(stdout).toContain('image add');
    }
    for (const args of [[], ['image']]) {
      const { code, stdout, stderr } = await alone.run(args);
      expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
      expect(stderr).toContain('image add');
    }
    expect((await alone.run(['help', 'ps'])).stdout).toBe((await alone.run(['ps', '--help'])).stdout);
  });

  test('of a command that nobody reads to its end is no failure', async () => {
    const child = Bun.spawn(['sh', '-c', '"$0" --help | head -n 1; "$0" image ls | true', EXECUTABLE], {
      cwd: '/',
      env: { PATH: process.env.PATH ?? '', IMGCRED_DATA_DIR: alone.dataDirectory },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    expect(await child.stdout.text()).toStartWith('imgcred ');
    expect(await child.stderr.text()).toBe('');
  });
});

describe('a reader that goes away', () => {
  test('ends the run that writes to it, and its container', async () => {
    const script = `"$0" run --name yes "$1" -- /bin/sh -c 'while :; do echo y; done' | head -n 1`;
    const child = Bun.spawn(['sh', '-c', script, EXECUTABLE, image], {
      cwd: '/',
      env: { PATH: process.env.PATH ?? '', IMGCRED_DATA_DIR: served.dataDirectory },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    expect(await child.stdout.text()).toBe('y\n');
    expect(await child.stderr.text()).toBe('');
    expect(await show('yes')).toMatchObject({ state: 'exited', exit_code: 137 });
  });
});

test('a secret that is typed at a terminal is not shown there', async () => {
  const own = { PATH: process.env.PATH ?? '', IMGCRED_DATA_DIR: served.dataDirectory };
  const command = [EXECUTABLE, 'secret', 'set', 'typed', '--value-stdin'];
  await using program = new TerminalProgram(command, { env: own });
  await program.sees('value of typed (not shown; Enter, then Ctrl-D ends it): ');
  program.type('hush-hush-x\x7f1\r\x04');
  expect(await program.exited).toBe(0);
  await program.sees('typed is now at version 1');
  expect(program.shown).not.toContain('hush');
  expect((await served.run(['secret', 'reveal', 'typed'])).stdout).toBe('hush-hush-1\n');
});

describe('imgcred wait', () => {
  test('prints the exit codes in the order of the containers, and exits with the first that is not 0', async () => {
    for (const [name, code] of [
      ['fine', 0],
      ['bad', 4],
      ['worse', 5],
    ] as const) {
      await served.run(['run', '-d', '--name', name, ...shell(`exit ${code}`)]);
    }
    expect(await served.run(['wait', 'fine', 'bad', 'worse'])).toMatchObject({
      code: 4,
      stdout: '0\n4\n5\n',
    });
    expect(await served.run(['wait', 'fine'])).toMatchObject({ code: 0, stdout: '0\n' });
  });
});

describe('imgcred token revoke', () => {
  test('refuses a name that two live tokens have', async () => {
    for (const _ of [1, 2]) await served.run(['token', 'create', 'twin', '--role', 'runner']);
    const list = async () =>
      z
        .array(z.looseObject({ id: z.string(), name: z.string(), revoked_at: z.string().nullable() }))
        .parse(JSON.parse((await served.run(['token', 'ls', '--json'])).stdout))
        .filter(({ name, revoked_at }) => name === 'twin' && revoked_at === null);
    const [one, two] = await list();
    const refused = await served.run(['token', 'revoke', 'twin']);
    expect(refused.code).toBe(6);
    expect(refused.stderr).toContain(one?.id ?? '');
    expect(refused.stderr).toContain(two?.id ?? '');
    expect(await served.run(['token', 'revoke', one?.id ?? ''])).toMatchObject({ code: 0 });
    expect(await served.run(['token', 'revoke', 'twin'])).toMatchObject({ code: 0 });
    expect(await list()).toEqual([]);
  });
});

describe('lists', () => {
  test('--quiet prints what other commands take, a line each, and nothing where there is nothing', async () => {
    const list = async (...args: string[]) => {
      const { code, stdout } = await served.run(args);
      expect(code).toBe(0);
      return stdout;
    };
    expect(await list('image', 'ls', '-q')).toMatch(/^img_\w+\n$/);
    expect((await list('secret', 'ls', '--quiet')).split('\n')).toContain(
      `oci-registry-${proxy.host.replace(/[.:]/g, '-')}`,
    );
    expect(await list('workspace', 'ls', '-q')).toBe('default\n');
    expect(await list('image', 'pins', '-q')).toBe('');
    const ids = (await list('ps', '-a', '-q')).trimEnd().split('\n');
    const rows = z.array(shape).parse(JSON.parse(await list('ps', '-a', '--json')));
    expect(ids).toEqual(rows.map(({ id }) => id));
    const both = await served.run(['ps', '-q', '--json']);
    expect(both.code).toBe(2);
  });

  test('every list takes --json and --quiet', async () => {
    const { stdout } = await served.run(['--help']);
    const lists = [...stdout.matchAll(/^ {2}(\S+ (?:ls|pins|history))\s/gm)].map((match) => match[1] ?? '');
    expect(lists.length).toBeGreaterThanOrEqual(10);
    for (const words of lists) {
      const help = (await served.run([...words.split(' '), '--help'])).stdout;
      expect(help).toContain('--json ');
      expect(help).toContain('-q, --quiet ');
    }
  });
});

describe('a refused credential', () => {
  test('is told of with its secret’s name and the command that gives it a new value', async () => {
    const secret = `oci-registry-${proxy.host.replace(/[.:]/g, '-')}`;
    const command = `imgcred secret set ${secret} --creds-env REGISTRY_USERNAME,REGISTRY_PASSWORD`;
    const headers = { 'www-authenticate': 'Basic realm="changed"' };
    await mkdir(join(alone.directory, 'mnt'));
    proxy.fault = () => ({ status: 401, headers, body: '{"errors":[{"code":"UNAUTHORIZED"}]}' });
    try {
      for (const [args, code] of [
        [['run', image], 125],
        [['index', 'push', image], 4],
        [['mount', image, join(alone.directory, 'mnt')], 4],
        [['image', 'pin', image], 4],
        [['image', 'add', image, '--secret', secret], 4],
      ] as const) {
        const refused = await alone.run(args);
        expect(refused.code).toBe(code);
        expect(refused.stderr).toContain(`secret ${secret}: `);
        expect(refused.stderr).toContain(command);
        expect(refused.stderr).not.toContain(PASSWORD);
      }
      const without = await alone.run(['image', 'add', image]);
      expect(without.code).toBe(4);
      expect(without.stderr).toContain(`imgcred image add ${image} --secret ${secret}`);
    } finally {
      proxy.fault = () => undefined;
    }
  });
});
