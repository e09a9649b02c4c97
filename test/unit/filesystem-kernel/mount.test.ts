import { describe, expect, setDefaultTimeout, test } from 'bun:test';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { duplicateDescriptorOf, probeKernelDriver } from '../../../src/filesystem/drivers/kernel/index.ts';
import { libc } from '../../../src/filesystem/drivers/kernel/libc.ts';
import { contentByte } from './mount-server.ts';
import { run, ServerProcess, scratch } from './server-process.ts';

// Each starts processes, and the machine may be busy with other tests.
setDefaultTimeout(60_000);

function place(directory: string, name = 'mnt'): string {
  const mountpoint = path.join(directory, name);
  mkdirSync(mountpoint);
  return mountpoint;
}

function content(size: number): Uint8Array {
  return Uint8Array.from({ length: size }, (_, offset) => contentByte(offset));
}

function sha256(bytes: Uint8Array): string {
  return new Bun.CryptoHasher('sha256').update(bytes).digest('hex');
}

// Linux 6.9 on; elsewhere both of each pair of tests go by the journal.
const resends = probeKernelDriver().features.resend;
const inFlight = (repeated: boolean) => (repeated ? 'repeated by the kernel' : 'answered from the journal');

const BIG = 4 << 20;
const bigSum = sha256(content(BIG));

describe('a mount by the kernel driver', () => {
  test('is read like any directory, and unmounted without a trace', async () => {
    await using place_ = scratch();
    const mountpoint = place(place_.directory);
    const { server, ready } = await ServerProcess.start({ mountpoints: [mountpoint] });
    expect(ready.session?.minor).toBeGreaterThanOrEqual(31);
    expect((await run(['ls', mountpoint])).out).toBe('big\nbin\nlate\nlink\n');
    expect((await run(['cat', `${mountpoint}/link`])).out).toBe('hello world\n');
    expect((await run(['sha256sum', `${mountpoint}/big`])).out).toStartWith(bigSum);
    expect((await run(['sha256sum', `${mountpoint}/late`])).out).toStartWith(bigSum);
    expect((await run(['stat', '-f', '-c', '%l', mountpoint])).out).toBe('255\n');
    expect(await server.end()).toBe(0);
    expect((await run(['findmnt', mountpoint])).out).toBe('');
  });

  test('refuses every kind of change', async () => {
    await using place_ = scratch();
    const mountpoint = place(place_.directory);
    const { server } = await ServerProcess.start({ mountpoints: [mountpoint] });
    for (const command of [
      ['touch', `${mountpoint}/new`],
      ['rm', `${mountpoint}/big`],
      ['mkdir', `${mountpoint}/new`],
      ['chmod', '0', `${mountpoint}/big`],
      ['mv', `${mountpoint}/big`, `${mountpoint}/bigger`],
    ]) {
      expect((await run(command)).err).toContain('Read-only file system');
    }
    await server.end();
  });

  test('that somebody else unmounts ends its server in good order', async () => {
    await using place_ = scratch();
    const mountpoint = place(place_.directory);
    const { server } = await ServerProcess.start({ mountpoints: [mountpoint] });
    expect((await run(['umount', mountpoint])).code).toBe(0);
    expect(await server.end()).toBe(0);
    expect(await server.log).toBe('');
  });

  test('that is in use is detached, and serves its users to the end', async () => {
    await using place_ = scratch();
    const mountpoint = place(place_.directory);
    const { server } = await ServerProcess.start({ mountpoints: [mountpoint] });
    const user = Bun.spawn(['sh', '-c', `exec 9< ${mountpoint}/big; echo in; read line; sha256sum <&9`], {
      stdio: ['pipe', 'pipe', 'ignore'],
    });
    const output = user.stdout.getReader();
    await output.read();
    await server.ask('unmount');
    expect((await run(['findmnt', mountpoint])).out).toBe('');
    user.stdin.write('\n');
    user.stdin.end();
    expect(Buffer.from((await output.read()).value ?? []).toString()).toStartWith(bigSum);
    expect(await server.exited).toBe(0);
  });

  test('gives up a read whose reader is interrupted', async () => {
    await using place_ = scratch();
    const mountpoint = place(place_.directory);
    const { server } = await ServerProcess.start({ mountpoints: [mountpoint], ready: false });
    const reader = Bun.spawn(['dd', `if=${mountpoint}/late`, 'of=/dev/null', 'bs=64k', 'iflag=direct'], {
      stdio: ['ignore', 'ignore', 'ignore'],
    });
    await server.askUntil('stats', ({ waiting }) => waiting === 1);
    reader.kill('SIGTERM');
    await reader.exited;
    expect(reader.signalCode).toBe('SIGTERM');
    await server.askUntil('stats', ({ waiting }) => waiting === 0);
    expect((await run(['cat', `${mountpoint}/link`])).out).toBe('hello world\n');
    expect(await server.end()).toBe(0);
  });

  test('does not let waiting reads keep others from being served', async () => {
    await using place_ = scratch();
    const mountpoint = place(place_.directory);
    const { server } = await ServerProcess.start({ mountpoints: [mountpoint], ready: false });
    const readers = Array.from({ length: 16 }, (_, n) =>
      Bun.spawn(
        ['dd', `if=${mountpoint}/late`, 'of=/dev/null', 'bs=4k', 'count=1', `skip=${n}`, 'iflag=direct'],
        {
          stdio: ['ignore', 'ignore', 'ignore'],
        },
      ),
    );
    await server.askUntil('stats', ({ waiting }) => waiting === 16);
    expect((await run(['sha256sum', `${mountpoint}/big`])).out).toStartWith(bigSum);
    for (const reader of readers) reader.kill('SIGKILL');
    await Promise.all(readers.map(({ exited }) => exited));
    expect(await server.end()).toBe(0);
  });

  test('beside ninety-nine others costs less than 1 MiB, and all of them answer', async () => {
    await using place_ = scratch();
    const mountpoints = Array.from({ length: 100 }, (_, n) => place(place_.directory, `m${n}`));
    const one = await ServerProcess.start({ mountpoints: mountpoints.slice(0, 1) });
    const single = (await one.server.ask('stats')).memory ?? 0;
    await one.server.end();
    const { server } = await ServerProcess.start({ mountpoints });
    const reads = mountpoints.map((mountpoint) => run(['sha256sum', `${mountpoint}/bin/hello`]));
    for (const { out } of await Promise.all(reads))
      expect(out).toStartWith(sha256(Buffer.from('hello world\n')));
    const { memory = 0 } = await server.ask('stats');
    expect((memory - single) / 99).toBeLessThan(1024 * 1024);
    expect(await server.end()).toBe(0);
  });
});

describe('a server thread that dies over a request', () => {
  const broken = (directory: string) => {
    const at = path.join(directory, 'break');
    return { at, options: { env: { IMGCRED_TEST_BREAK_THREAD: at } } };
  };

  test.each([
    ['repeats requests', true],
    ['does not repeat requests', false],
  ])('is replaced, and who reads gets the right bytes, where the kernel %s', async (_, resend) => {
    await using place_ = scratch();
    const mountpoint = place(place_.directory);
    const statePath = path.join(place_.directory, 'state');
    const { at, options } = broken(place_.directory);
    const { server } = await ServerProcess.start({ mountpoints: [mountpoint], statePath, resend }, options);
    // All that it started with, and some that came in their place.
    for (let deaths = 0; deaths < 4; deaths++) {
      await server.ask('breakThread');
      const direct = ['dd', `if=${mountpoint}/big`, 'bs=1M', 'iflag=direct', 'status=none'];
      const read = await run(['sh', '-c', `${direct.join(' ')} | sha256sum`]);
      expect(read).toMatchObject({ code: 0, out: expect.stringContaining(bigSum), err: '' });
      expect(existsSync(at)).toBe(false);
    }
    expect(await server.end()).toBe(0);
    const deaths = (await server.log).split('\n').filter((line) => line.includes('another takes its place'));
    expect(deaths).toHaveLength(4);
    expect(deaths[0]).toContain('a defect of this thread');
  });

  test('again and again ends its process, and a successor answers', async () => {
    await using place_ = scratch();
    const mountpoint = place(place_.directory);
    const settings = { mountpoints: [mountpoint], statePath: path.join(place_.directory, 'state') };
    const { server, ready } = await ServerProcess.start(settings, broken(place_.directory).options);
    const descriptor = duplicateDescriptorOf(server.pid, ready.descriptor ?? -1);
    let ended = false;
    void server.exited.then(() => (ended = true));
    const readers: ReturnType<typeof run>[] = [];
    while (!ended) {
      await server.ask('breakThread').catch(() => {});
      readers.push(
        run(['dd', `if=${mountpoint}/big`, 'bs=1M', 'iflag=direct', 'status=none', 'of=/dev/null']),
      );
      await Promise.race([readers.at(-1), server.exited]);
    }
    expect(await server.exited).not.toBe(0);
    const second = await ServerProcess.start({ ...settings, resume: true }, { descriptor });
    for (const { code, err } of await Promise.all(readers))
      expect({ code, err }).toEqual({ code: 0, err: '' });
    expect(readers.length).toBe(11);
    libc.close(descriptor);
    expect(await second.server.end()).toBe(0);
    expect(await second.server.log).toContain(inFlight(resends));
  });
});

describe('passthrough', () => {
  test('serves a file that is wholly local from its backing file, and lets go with the last close', async () => {
    await using place_ = scratch();
    const mountpoint = place(place_.directory);
    const backing = path.join(place_.directory, 'backing');
    // Other bytes than the server's own, to see where a read comes from.
    const other = new Uint8Array(BIG).fill(0x55);
    writeFileSync(backing, other);
    const { server } = await ServerProcess.start({ mountpoints: [mountpoint], backing });
    expect((await run(['sha256sum', `${mountpoint}/big`])).out).toStartWith(sha256(other));
    await server.askUntil('stats', ({ backings }) => backings === 0);
    const holder = Bun.spawn(['sh', '-c', `exec 9< ${mountpoint}/big; echo open; read line`], {
      stdio: ['pipe', 'pipe', 'ignore'],
    });
    await holder.stdout.getReader().read();
    expect((await server.ask('stats')).backings).toBe(1);
    expect((await run(['cmp', `${mountpoint}/big`, backing])).code).toBe(0);
    expect((await server.ask('stats')).backings).toBe(1);
    holder.stdin.end();
    await holder.exited;
    await server.askUntil('stats', ({ backings }) => backings === 0);
    await server.end();
  });

  test('begins with the next open after the file has become local, never beside a cached one', async () => {
    await using place_ = scratch();
    const mountpoint = place(place_.directory);
    const backing = path.join(place_.directory, 'backing');
    writeFileSync(backing, content(BIG));
    const { server } = await ServerProcess.start({ mountpoints: [mountpoint], backing, backingReady: false });
    const holder = Bun.spawn(['sh', '-c', `exec 9< ${mountpoint}/big; echo open; read line`], {
      stdio: ['pipe', 'pipe', 'ignore'],
    });
    await holder.stdout.getReader().read();
    await server.ask('backingReady');
    expect((await run(['sha256sum', `${mountpoint}/big`])).out).toStartWith(bigSum);
    expect((await server.ask('stats')).backings).toBe(0);
    holder.stdin.end();
    await holder.exited;
    const again = Bun.spawn(['sh', '-c', `exec 9< ${mountpoint}/big; echo open; read line`], {
      stdio: ['pipe', 'pipe', 'ignore'],
    });
    await again.stdout.getReader().read();
    expect((await server.ask('stats')).backings).toBe(1);
    again.stdin.end();
    await again.exited;
    await server.end();
  });

  test('falls back to the page cache where the backing file cannot be had', async () => {
    await using place_ = scratch();
    const mountpoint = place(place_.directory);
    const { server } = await ServerProcess.start({ mountpoints: [mountpoint], backing: '/nonexistent/file' });
    expect((await run(['sha256sum', `${mountpoint}/big`])).out).toStartWith(bigSum);
    await server.end();
  });
});

describe('a mount whose server is killed', () => {
  test.each([
    ['repeats requests', true],
    ['does not repeat requests', false],
  ])(
    'goes on under a successor where the kernel %s, and its waiting reader gets the right bytes',
    async (_, resend) => {
      await using place_ = scratch();
      const mountpoint = place(place_.directory);
      const statePath = path.join(place_.directory, 'state');
      const settings = { mountpoints: [mountpoint], statePath, resend };
      const first = await ServerProcess.start({ ...settings, ready: false });
      const descriptor = duplicateDescriptorOf(first.server.pid, first.ready.descriptor ?? -1);
      const reader = run(['sha256sum', `${mountpoint}/late`]);
      await first.server.askUntil('stats', ({ waiting = 0 }) => waiting > 0);
      await first.server.kill();
      const second = await ServerProcess.start({ ...settings, resume: true }, { descriptor });
      expect((await reader).out).toStartWith(bigSum);
      libc.close(descriptor);
      expect(await second.server.end()).toBe(0);
      // Which way it went is what the log says.
      expect(await second.server.log).toContain(inFlight(resend && resends));
    },
  );

  test.each([
    ['repeats requests', true],
    ['does not repeat requests', false],
  ])(
    'ten times during one sha256sum, where the kernel %s, is not noticed by it',
    async (_, resend) => {
      await using place_ = scratch();
      const mountpoint = place(place_.directory);
      const bigSize = 128 << 20;
      const settings = {
        mountpoints: [mountpoint],
        statePath: path.join(place_.directory, 'state'),
        bigSize,
        resend,
      };
      let { server, ready } = await ServerProcess.start(settings);
      const descriptor = duplicateDescriptorOf(server.pid, ready.descriptor ?? -1);
      const expected = new Bun.CryptoHasher('sha256');
      for (let at = 0; at < bigSize; at += 1 << 20) {
        expected.update(Uint8Array.from({ length: 1 << 20 }, (_, i) => contentByte(at + i)));
      }
      const reader = run(['sha256sum', `${mountpoint}/late`], { timeoutMs: 60_000 });
      for (let kills = 0; kills < 10; kills++) {
        await server.kill();
        ({ server, ready } = await ServerProcess.start({ ...settings, resume: true }, { descriptor }));
      }
      expect((await reader).out).toStartWith(expected.digest('hex'));
      libc.close(descriptor);
      expect(await server.end()).toBe(0);
    },
    90_000,
  );

  test('keeps its passthrough files open and agrees with new opens of them', async () => {
    await using place_ = scratch();
    const mountpoint = place(place_.directory);
    const backing = path.join(place_.directory, 'backing');
    writeFileSync(backing, content(BIG));
    const settings = { mountpoints: [mountpoint], statePath: path.join(place_.directory, 'state'), backing };
    const first = await ServerProcess.start(settings);
    const descriptor = duplicateDescriptorOf(first.server.pid, first.ready.descriptor ?? -1);
    const holder = Bun.spawn(['sh', '-c', `exec 9< ${mountpoint}/big; echo open; read line; sha256sum <&9`], {
      stdio: ['pipe', 'pipe', 'ignore'],
    });
    const output = holder.stdout.getReader();
    await output.read();
    await first.server.kill();
    // This one would open through the page cache, which the kernel refuses beside the open passthrough.
    const second = await ServerProcess.start(
      { ...settings, resume: true, backingReady: false },
      { descriptor },
    );
    expect((await run(['sha256sum', `${mountpoint}/big`])).out).toStartWith(bigSum);
    holder.stdin.write('\n');
    holder.stdin.end();
    expect(Buffer.from((await output.read()).value ?? []).toString()).toStartWith(bigSum);
    await holder.exited;
    libc.close(descriptor);
    expect(await second.server.end()).toBe(0);
  });

  test('is handed over to a successor in good order too', async () => {
    await using place_ = scratch();
    const mountpoint = place(place_.directory);
    const settings = { mountpoints: [mountpoint], statePath: path.join(place_.directory, 'state') };
    const first = await ServerProcess.start({ ...settings, ready: false });
    const descriptor = duplicateDescriptorOf(first.server.pid, first.ready.descriptor ?? -1);
    const reader = run(['sha256sum', `${mountpoint}/late`]);
    await first.server.askUntil('stats', ({ waiting = 0 }) => waiting > 0);
    expect(await first.server.end('handOver')).toBe(0);
    const second = await ServerProcess.start({ ...settings, resume: true }, { descriptor });
    expect((await reader).out).toStartWith(bigSum);
    libc.close(descriptor);
    expect(await second.server.end()).toBe(0);
  });
});
