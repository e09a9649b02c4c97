import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { existsSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  adoptContainer,
  type Container,
  cleanContainer,
  findRuntime,
  readHostFacts,
  SpareSupervisors,
} from '../../../src/worker/containers/index.ts';
import { ContainerLab } from './rootfs.ts';
import { create, endLab, leftovers, output, run, SUPERVISOR_COMMAND, TEST_CGROUP_PARENT } from './running.ts';

const FACE = join(import.meta.dir, '../../../src/worker/containers/index.ts');

let lab: ContainerLab;
const runtime = await findRuntime();
const shell = (script: string) => ({ command: ['/bin/sh', '-c', script] });

beforeAll(() => {
  lab = new ContainerLab();
});
afterAll(() => endLab(lab));

/** Resolves when the container has written `text`. */
async function written(container: Container, text: string): Promise<void> {
  let seen = '';
  for await (const record of container.readLogs({ follow: true })) {
    seen += Buffer.from(record.bytes).toString();
    if (seen.includes(text)) return;
  }
  throw new Error(`the container ended with '${seen}'`);
}

describe('stopping', () => {
  test('lets a container end by itself after the stop signal', async () => {
    const container = await create(lab, runtime, {
      image: { StopSignal: 'SIGUSR1' },
      options: shell('trap "echo bye; exit 3" USR1; echo ready; while true; do sleep 0.05; done'),
    });
    await container.start();
    await written(container, 'ready');
    expect(await container.stop()).toMatchObject({ exitCode: 3, reason: 'exited' });
    expect((await output(container)).stdout).toBe('ready\nbye\n');
    await container.delete();
  });

  test('kills a container that does not listen, after the time it was given', async () => {
    const container = await create(lab, runtime, {
      options: { ...shell('trap "" TERM; echo ready; while true; do sleep 0.05; done'), stopTimeoutMs: 100 },
    });
    await container.start();
    await written(container, 'ready');
    expect(await container.stop()).toMatchObject({ exitCode: 137, signal: 'SIGKILL' });
    await container.delete();
  });

  test('of a container that has ended gives its end', async () => {
    const container = await create(lab, runtime, { options: shell('exit 4') });
    await container.start();
    await container.wait();
    expect(await container.stop()).toMatchObject({ exitCode: 4 });
    expect(container.kill('TERM')).rejects.toMatchObject({ code: 'CONTAINER_FAILED' });
    await container.delete();
    await container.delete();
  });
});

describe('output', () => {
  test('of a mebibyte arrives byte for byte, through rotation', async () => {
    const container = await create(lab, runtime, {
      options: shell(
        'seq 1 200000 > /tmp/all; head -c 1048576 /tmp/all; head -c 1048576 /tmp/all | sha256sum >&2',
      ),
      rotation: { maxBytes: 100_000, maxFiles: 100 },
    });
    await container.start();
    const { stdout, stderr } = await output(container);
    expect(stdout).toHaveLength(1_048_576);
    expect(stderr).toStartWith(new Bun.CryptoHasher('sha256').update(stdout).digest('hex'));
    await container.delete();
  });

  test('can be read from its last lines, and from a time on', async () => {
    const container = await create(lab, runtime, { options: shell('seq 1 5; echo end >&2') });
    await container.start();
    await container.wait();
    const texts = async (options: Parameters<Container['readLogs']>[0]) => {
      let text = '';
      for await (const record of container.readLogs(options)) text += Buffer.from(record.bytes).toString();
      return text;
    };
    expect(await texts({})).toContain('1\n2\n3\n4\n5\n');
    expect((await texts({ tail: 2 })).trimEnd().split('\n')).toHaveLength(2);
    expect(await texts({ since: Date.now() + 60_000 })).toBe('');
    await container.delete();
  });

  test('can be written to again through /dev/stdout, also by a user that is not root', async () => {
    const result = await run(lab, runtime, {
      options: { ...shell('echo again > /proc/self/fd/1; echo error > /proc/self/fd/2'), user: 'app' },
    });
    expect(result).toMatchObject({ stdout: 'again\n', stderr: 'error\n' });
  });
});

describe('a worker that is killed', () => {
  test('leaves its container running; the next one has its output and its exit code', async () => {
    const place = lab.next();
    const program = `
      import { createContainer, findRuntime } from ${JSON.stringify(FACE)};
      const container = await createContainer(JSON.parse(process.argv[1]));
      await container.start();
      process.kill(process.pid, 'SIGKILL');`;
    const wanted = {
      ...place,
      lower: [lab.rootfs],
      image: {},
      options: shell('while [ ! -e /go ]; do sleep 0.02; done; echo survived; exit 9'),
      runtime,
      supervisorCommand: SUPERVISOR_COMMAND,
      cgroupParent: TEST_CGROUP_PARENT,
    };
    const worker = Bun.spawn([process.execPath, '-e', program, JSON.stringify(wanted)], {
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    await worker.exited;
    expect(worker.signalCode).toBe('SIGKILL');

    const container = adoptContainer(place.directory);
    expect(container.status()).toBe('running');
    const end = container.wait();
    await Bun.write(join('/proc', String(container.pid()), 'root/go'), '');
    expect(await end).toMatchObject({ exitCode: 9, reason: 'exited' });
    expect((await output(container)).stdout).toBe('survived\n');
    await container.delete();
  });
});

describe('cleaning', () => {
  test('ends a container whose supervisor was killed, and removes all of it', async () => {
    const place = lab.next();
    const container = await create(lab, runtime, { ...place, options: { command: ['sleep', '1000'] } });
    await container.start();
    const pid = container.pid();
    const waiting = container.wait();
    const { supervisor } = JSON.parse(readFileSync(join(place.directory, 'state.json'), 'utf8'));
    process.kill(supervisor.pid, 'SIGKILL');
    expect(await waiting).toMatchObject({ exitCode: 125, reason: 'lost' });
    expect(container.status()).toBe('lost');
    await cleanContainer(place.directory);
    expect(existsSync(`/proc/${pid}/exe`)).toBe(false);
    expect(existsSync(place.directory)).toBe(false);
    await cleanContainer(place.directory);
  });

  test('ends a container that was never started', async () => {
    const container = await create(lab, runtime, { options: shell('true') });
    expect(container.status()).toBe('created');
    await container.delete();
    expect(existsSync(container.directory)).toBe(false);
  });

  test('leaves others alone that have the number of a name space that is gone', async () => {
    const place = lab.next();
    await create(lab, runtime, { ...place, options: shell('sleep 1000') });
    const path = join(place.directory, 'state.json');
    const state = JSON.parse(readFileSync(path, 'utf8'));
    process.kill(state.supervisor.pid, 'SIGKILL');
    const stranger = Bun.spawn(['unshare', '--mount', 'sh', '-c', 'echo; exec sleep 1000'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    try {
      await stranger.stdout.getReader().read();
      const mountNamespace = readlinkSync(`/proc/${stranger.pid}/ns/mnt`);
      writeFileSync(path, JSON.stringify({ ...state, mountNamespace }));
      await cleanContainer(place.directory);
      expect(existsSync(place.directory)).toBe(false);
      expect(stranger.exitCode ?? stranger.signalCode).toBeNull();
    } finally {
      stranger.kill('SIGKILL');
      await stranger.exited;
    }
  });

  test('ends a running container with all its processes', async () => {
    const container = await create(lab, runtime, {
      options: shell('sleep 1000 & sleep 1000 & echo ready; wait'),
    });
    await container.start();
    await written(container, 'ready');
    await container.delete();
    expect(leftovers(lab.directory)).toEqual([]);
  });
});

describe('a supervisor that is killed', () => {
  test.each(['crun', 'runc'])(
    'at any moment of a start leaves nothing behind, with %s',
    async (name) => {
      const preferred = await findRuntime(name);
      for (let step = 0; step < 12; step += 1) {
        const place = lab.next();
        const container = await create(lab, preferred, {
          ...place,
          options: shell('sleep 1000 & sleep 1000'),
        });
        const { supervisor } = JSON.parse(readFileSync(join(place.directory, 'state.json'), 'utf8'));
        const started = container.start().catch(() => {});
        // Not to wait for anything: to be killed somewhere else each time.
        await Bun.sleep(step * 4);
        process.kill(supervisor.pid, 'SIGKILL');
        await started;
        await cleanContainer(place.directory);
        expect(existsSync(place.directory)).toBe(false);
        expect(leftovers(lab.directory)).toEqual([]);
      }
    },
    30_000,
  );
});

describe('a supervisor that was started ahead', () => {
  test('runs a container, and another one takes its place', async () => {
    using spares = new SpareSupervisors(SUPERVISOR_COMMAND, 1);
    for (const code of [1, 2]) {
      const { exit } = await run(lab, runtime, { options: shell(`exit ${code}`), spares });
      expect(exit.exitCode).toBe(code);
    }
  });

  test('ends with the worker that started it', async () => {
    const program = `
      import { SpareSupervisors } from ${JSON.stringify(FACE)};
      const spares = new SpareSupervisors(${JSON.stringify(SUPERVISOR_COMMAND)}, 1);
      const child = spares.take();
      console.log(child.pid);
      process.kill(process.pid, 'SIGKILL');`;
    const worker = Bun.spawn([process.execPath, '-e', program], { stdio: ['ignore', 'pipe', 'inherit'] });
    const pid = Number(await worker.stdout.text());
    await worker.exited;
    expect(pid).toBeGreaterThan(1);
    const gone = () => !existsSync(`/proc/${pid}/exe`);
    for (let tries = 0; !gone() && tries < 500; tries += 1) await Bun.sleep(10);
    expect(gone()).toBe(true);
  });
});

describe('control groups', () => {
  // Each in a mount name space of its own, with another view of /sys/fs/cgroup.
  const runIn = (prepare: string, name: string) => {
    const program = `
      import { findRuntime, readHostFacts } from ${JSON.stringify(FACE)};
      import { run } from ${JSON.stringify(join(import.meta.dir, 'running.ts'))};
      const lab = { ...${JSON.stringify({ rootfs: lab.rootfs, place: lab.next() })} };
      const result = await run({ rootfs: lab.rootfs, next: () => lab.place }, await findRuntime('${name}'), {
        options: { command: ['sh', '-c', 'cat /proc/self/cgroup; exit 6'] }, cgroupParent: '${TEST_CGROUP_PARENT}',
      });
      console.log(JSON.stringify({ mode: readHostFacts().cgroup.mode, ...result }));`;
    const script = `${prepare} && exec "$0" -e "$1"`;
    const child = Bun.spawnSync(['unshare', '-m', 'sh', '-c', script, process.execPath, program]);
    return JSON.parse(child.stdout.toString() || JSON.stringify({ error: child.stderr.toString() }));
  };

  test.each(['crun', 'runc'])('of version 2 alone hold a container by %s', (name) => {
    const result = runIn('umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup', name);
    expect(result).toMatchObject({ mode: 'v2', exit: { exitCode: 6 } });
    // Its own group, as it sees it from a name space of its own.
    expect(result.stdout).toContain('0::/\n');
  });

  test.each([
    'umount -R /sys/fs/cgroup',
    'umount -R /sys/fs/cgroup && mount -t tmpfs -o ro none /sys/fs/cgroup',
  ])('can be done without, as after `%s`', (prepare) => {
    expect(runIn(prepare, 'crun')).toMatchObject({ mode: 'none', exit: { exitCode: 6 } });
    expect(runIn(prepare, 'runc').error).toContain('install crun');
  });

  test('tell what a container uses', async () => {
    const container = await create(lab, runtime, {
      options: { ...shell('sleep 1000 & echo ready; wait'), limits: { memoryBytes: 32 << 20 } },
    });
    await container.start();
    await written(container, 'ready');
    expect(container.stats()).toMatchObject({ memoryLimitBytes: 32 << 20, processes: 2 });
    expect(container.stats()?.memoryBytes).toBeGreaterThan(0);
    expect(container.stats()?.cpuMs).toBeGreaterThan(0);
    await container.delete();
    expect(container.stats()).toBeUndefined();
  });
});

describe('limits', () => {
  const { cgroup } = readHostFacts();

  test.skipIf(!cgroup.controllers.has('memory'))(
    'a container over its memory is killed, and it says so',
    async () => {
      const { exit } = await run(lab, runtime, {
        options: {
          command: ['tail', '/dev/zero'],
          limits: { memoryBytes: 16 << 20, memorySwapBytes: 16 << 20 },
        },
      });
      expect(exit).toMatchObject({ exitCode: 137, reason: 'out-of-memory' });
    },
  );

  test.skipIf(!cgroup.controllers.has('pids'))(
    'a container can’t have more processes than it was given',
    async () => {
      const { stdout, exit } = await run(lab, runtime, {
        options: {
          ...shell('sleep 0.1 & sleep 0.1 & sleep 0.1 & sleep 0.1 & wait; echo none'),
          limits: { pids: 3 },
        },
      });
      expect({ exit: exit.exitCode, stdout }).not.toEqual({ exit: 0, stdout: 'none\n' });
    },
  );
});
