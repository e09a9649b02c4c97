import { describe, expect, setDefaultTimeout, test } from 'bun:test';
import { chmodSync, chownSync, mkdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { probeKernelDriver } from '../../../src/filesystem/drivers/kernel/index.ts';
import { run, ServerProcess, scratch } from './server-process.ts';

// Each starts processes, and the machine may be busy with other tests.
setDefaultTimeout(60_000);

const repository = path.resolve(import.meta.dir, '../../..');
const server = path.join(import.meta.dir, 'mount-server.ts');
const NOBODY = 65534;

describe('mounting', () => {
  test('as an ordinary user goes by fusermount3, and the mount is that user’s alone', async () => {
    await using place = scratch();
    const mountpoint = path.join(place.directory, 'mnt');
    mkdirSync(mountpoint);
    chmodSync(place.directory, 0o755);
    chownSync(mountpoint, NOBODY, NOBODY);
    const as = `setpriv --reuid ${NOBODY} --regid ${NOBODY} --clear-groups`;
    // Most distributions open the device to all, some keep it to root: here, a node of our own in a mount
    // namespace of our own.
    const device = path.join(place.directory, 'fuse');
    const prepare = `mknod -m 666 ${device} c 10 229 && mount --bind ${device} /dev/fuse`;
    const { server: started } = await ServerProcess.start(
      { mountpoints: [mountpoint] },
      {
        command: [
          'unshare',
          '-m',
          'sh',
          '-c',
          `${prepare} && exec ${as} '${process.execPath}' '${server}' "$0"`,
        ],
      },
    );
    const inside = ['nsenter', '-m', '-t', String(started.pid)];
    const asNobody = [...inside, ...as.split(' ')];
    expect((await run([...asNobody, 'cat', `${mountpoint}/link`])).out).toBe('hello world\n');
    expect((await run([...inside, 'cat', `${mountpoint}/link`])).err).toContain('Permission denied');
    const { out } = await run([...inside, 'findmnt', '-no', 'OPTIONS', mountpoint]);
    expect(out).toContain('nosuid,nodev');
    expect(out).toContain('default_permissions');
    await started.ask('unmount');
    expect((await run(['findmnt', mountpoint])).out).toBe('');
  });

  test('in a user namespace goes by mount(2) alone, and overlayfs fits on top', async () => {
    await using place = scratch();
    const mountpoint = path.join(place.directory, 'mnt');
    for (const name of ['mnt', 'up', 'work', 'merged']) mkdirSync(path.join(place.directory, name));
    const { server: started } = await ServerProcess.start(
      { mountpoints: [mountpoint] },
      { command: ['unshare', '-Urm', process.execPath, server] },
    );
    const inside = ['nsenter', '--preserve-credentials', '-U', '-m', '-t', String(started.pid)];
    expect((await run([...inside, 'cat', `${mountpoint}/link`])).out).toBe('hello world\n');
    const d = place.directory;
    const overlay = `lowerdir=${mountpoint},upperdir=${d}/up,workdir=${d}/work,userxattr`;
    const script = `mount -t overlay overlay -o ${overlay} ${d}/merged && echo more >> ${d}/merged/bin/hello && cat ${d}/merged/link; umount ${d}/merged`;
    const { out, err } = await run([...inside, 'sh', '-c', script]);
    expect(err).toBe('');
    expect(out).toBe('hello world\nmore\n');
    expect(await started.end()).toBe(0);
  });

  test.each([
    [{}, false],
    [{ suidAndDevices: false }, true],
  ])('by root with %j', async (options, restricted) => {
    await using place = scratch();
    const mountpoint = path.join(place.directory, 'mnt');
    mkdirSync(mountpoint);
    const { server: started } = await ServerProcess.start({ mountpoints: [mountpoint], ...options });
    const found = (await run(['findmnt', '-no', 'OPTIONS', mountpoint])).out;
    expect(found.includes('nodev')).toBe(restricted);
    expect(found.includes('nosuid')).toBe(restricted);
    await started.end();
  });

  test('into a path that is no directory fails with the path in the message', async () => {
    const starting = ServerProcess.start({ mountpoints: ['/nonexistent/mount-point'] });
    expect(starting).rejects.toThrow('/nonexistent/mount-point: ENOENT');
    await starting.catch(() => {});
  });
});

describe('the probe', () => {
  test('finds what this machine has', () => {
    const { available, kernelVersion, features, mounting } = probeKernelDriver();
    expect(available).toBe(true);
    expect(readFileSync('/proc/sys/kernel/osrelease', 'utf8')).toBe(`${kernelVersion}\n`);
    expect(features.maxPages).toBe(256);
    expect(mounting).toBe('mount');
  });
});

describe('a compiled executable', () => {
  test('starts its server threads with the source tree out of sight', async () => {
    await using place = scratch();
    const mountpoint = path.join(place.directory, 'mnt');
    mkdirSync(mountpoint);
    const executable = path.join(place.directory, 'server');
    const built = await run(
      [
        process.execPath,
        'build',
        '--compile',
        '--root',
        repository,
        '--outfile',
        executable,
        server,
        path.join(repository, 'src/filesystem/drivers/kernel/server-thread.ts'),
      ],
      { timeoutMs: 60_000 },
    );
    expect(built).toMatchObject({ code: 0 });
    const hide = `mount -t tmpfs none '${repository}' && exec '${executable}' "$0"`;
    const { server: started } = await ServerProcess.start(
      { mountpoints: [mountpoint] },
      { command: ['unshare', '-m', 'sh', '-c', hide], cwd: place.directory },
    );
    const inside = ['nsenter', '-m', '-t', String(started.pid)];
    expect((await run([...inside, 'ls', repository])).out).toBe('');
    expect((await run([...inside, 'cat', `${mountpoint}/link`])).out).toBe('hello world\n');
    expect(await started.end()).toBe(0);
  }, 120_000);
});
