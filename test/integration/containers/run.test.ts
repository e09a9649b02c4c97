import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { existsSync, mkdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Secret } from '../../../src/credentials/index.ts';
import { ContainerStartError, findRuntime } from '../../../src/worker/containers/index.ts';
import { ContainerLab } from './rootfs.ts';
import { create, endLab, run } from './running.ts';

// What each call gave under podman 4.3 is in the test.
const PROBE = `
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
static void show(const char *name, long result) {
  printf("%s %s\\n", name, result >= 0 ? "ok" : strerrorname_np(errno));
}
int main(void) {
  show("bpf", syscall(SYS_bpf, 0, 0, 0));
  show("kexec_load", syscall(SYS_kexec_load, 0, 0, 0, 0));
  show("setns", syscall(SYS_setns, -1, 0));
  show("unshare_mounts", unshare(CLONE_NEWNS));
  show("keyctl", syscall(SYS_keyctl, 0, -1, 0));
  show("userfaultfd", syscall(SYS_userfaultfd, 0));
  show("perf_event_open", syscall(SYS_perf_event_open, 0, 0, 0, 0, 0));
  show("personality_without_randomisation", personality(ADDR_NO_RANDOMIZE));
  show("personality_query", personality(0xffffffff));
  show("netlink_audit", socket(AF_NETLINK, SOCK_RAW, 9));
  show("netlink_route", socket(AF_NETLINK, SOCK_RAW, 0));
  show("init_module", syscall(SYS_init_module, 0, 0, 0));
  show("unknown", syscall(9999));
  show("io_uring_setup", syscall(SYS_io_uring_setup, 0, 0));
  show("chroot", chroot("/"));
  show("mount", syscall(SYS_mount, 0, 0, 0, 0, 0));
  show("clock_settime", syscall(SYS_clock_settime, 0, 0));
  return 0;
}`;

let lab: ContainerLab;
beforeAll(() => {
  lab = new ContainerLab();
});
afterAll(() => endLab(lab));

for (const name of ['crun', 'runc'] as const) {
  describe(`a container by ${name}`, async () => {
    const runtime = await findRuntime(name);
    const shell = (script: string) => ({ command: ['/bin/sh', '-c', script] });

    test.each([
      ['true', 0],
      ['exit 7', 7],
      ['exit 255', 255],
    ])('ends with the code of `%s`', async (script, code) => {
      const { exit } = await run(lab, runtime, { options: shell(script) });
      expect(exit).toMatchObject({ exitCode: code, reason: 'exited' });
    });

    test('keeps the two streams apart', async () => {
      const result = await run(lab, runtime, { options: shell('echo out; echo err >&2') });
      expect(result).toMatchObject({ stdout: 'out\n', stderr: 'err\n' });
    });

    test.each([
      ['/bin/absent', 127],
      ['absent', 127],
      ['/etc/not-executable', 126],
      ['/etc', 126],
    ])('does not start for %s and ends with %d', async (command, code) => {
      const container = await create(lab, runtime, { options: { command: [command] } });
      const failure = await container.start().catch((error: unknown) => error);
      expect(failure).toBeInstanceOf(ContainerStartError);
      expect(failure).toMatchObject({ code: 'CONTAINER_FAILED', exitCode: code });
      expect(await container.wait()).toMatchObject({ exitCode: code, reason: 'start-failed' });
      await container.delete();
    });

    test('tells from the command’s own failure that a file was no program', async () => {
      const { exit } = await run(lab, runtime, { options: { command: ['/bin/not-a-program'] } });
      expect(exit).toMatchObject({ exitCode: 126, reason: 'start-failed' });
      const own = await run(lab, runtime, { options: shell('echo exec failed: no such file >&2; exit 1') });
      expect(own.exit).toMatchObject({ exitCode: 1, reason: 'exited' });
    });

    test('reports the number of the signal that ended it', async () => {
      const container = await create(lab, runtime, { options: { command: ['sleep', '1000'] } });
      await container.start();
      expect(container.status()).toBe('running');
      await container.kill('KILL');
      expect(await container.wait()).toMatchObject({ exitCode: 137, reason: 'signaled', signal: 'SIGKILL' });
      await container.delete();
    });

    test('takes entrypoint, command, environment, user and working directory from the image', async () => {
      const { stdout } = await run(lab, runtime, {
        image: {
          Entrypoint: ['/bin/sh', '-c'],
          Cmd: ['id; echo "$A|$HOME|$PATH"; readlink /proc/self/cwd; stat -c %U:%a .'],
          Env: ['A=from image', 'PATH=/bin'],
          User: 'app',
          WorkingDir: '/work/made',
        },
      });
      expect(stdout.split('\n')).toEqual([
        'uid=1000(app) gid=1000(app) groups=1000(app),29(audio)',
        'from image|/home/app|/bin',
        '/work/made',
        'app:755',
        '',
      ]);
    });

    test('refuses a working directory that was asked for and is not there', async () => {
      const creation = create(lab, runtime, { options: { ...shell('true'), workdir: '/absent' } });
      expect(creation).rejects.toMatchObject({
        code: 'INVALID_INPUT',
        message: expect.stringContaining('/absent'),
      });
    });

    // runc itself reads the file, within the container: there it may wait.
    test.if(name === 'crun')('does not wait for what only looks like a list of users', async () => {
      const layer = join(lab.directory, 'odd-users');
      mkdirSync(join(layer, 'etc'), { recursive: true });
      const passwd = join(layer, 'etc/passwd');
      await Bun.$`mkfifo ${passwd}`.quiet();
      const lower = [layer, lab.rootfs];
      const { exit } = await run(lab, runtime, { lower, options: shell('true') });
      expect(exit).toMatchObject({ exitCode: 0, reason: 'exited' });
      rmSync(passwd);
      writeFileSync(passwd, '');
      truncateSync(passwd, 1 << 30);
      await expect(create(lab, runtime, { lower, options: shell('true') })).rejects.toThrow(
        /etc\/passwd has 1073741824 bytes/,
      );
    });

    test('refuses a user that the image does not have, and leaves nothing', async () => {
      const place = lab.next();
      const creation = create(lab, runtime, { ...place, options: { ...shell('true'), user: 'nobody-here' } });
      expect(creation).rejects.toMatchObject({ code: 'INVALID_INPUT' });
      await creation.catch(() => {});
      expect(existsSync(place.directory)).toBe(false);
    });

    test('does not follow a link of the image out of it for its working directory', async () => {
      const { stdout } = await run(lab, runtime, {
        image: { WorkingDir: '/proc/../../../../tmp/below' },
        options: shell('readlink /proc/self/cwd'),
      });
      expect(stdout).toBe('/tmp/below\n');
    });

    test('has podman’s default capabilities as root, and none as another user', async () => {
      const script =
        'while read -r name value; do case $name in Cap*|Seccomp:|NoNewPrivs:) echo "$name $value";; esac; done < /proc/self/status';
      const root = await run(lab, runtime, { options: shell(script) });
      expect(root.stdout.split('\n')).toEqual([
        'CapInh: 0000000000000000',
        'CapPrm: 00000000800405fb',
        'CapEff: 00000000800405fb',
        'CapBnd: 00000000800405fb',
        'CapAmb: 0000000000000000',
        'NoNewPrivs: 0',
        'Seccomp: 2',
        '',
      ]);
      const user = await run(lab, runtime, {
        options: { ...shell(script), user: '1000', capAdd: ['NET_RAW'], noNewPrivileges: true },
      });
      expect(user.stdout.split('\n')).toEqual([
        'CapInh: 0000000000002000',
        'CapPrm: 0000000000002000',
        'CapEff: 0000000000002000',
        'CapBnd: 00000000800425fb',
        'CapAmb: 0000000000002000',
        'NoNewPrivs: 1',
        'Seccomp: 2',
        '',
      ]);
    });

    test('may make the system calls that podman allows, and gets podman’s errors for the others', async () => {
      lab.compile('probe', PROBE);
      const { stdout } = await run(lab, runtime, { options: { command: ['/bin/probe'] } });
      const found = Object.fromEntries(
        stdout
          .trim()
          .split('\n')
          .map((line) => line.split(' ')),
      );
      expect(found).toEqual({
        bpf: 'EPERM',
        chroot: 'ok',
        clock_settime: 'EPERM',
        init_module: 'EPERM',
        io_uring_setup: 'ENOSYS',
        kexec_load: 'EPERM',
        // Allowed; the kernel itself finds no such thing.
        keyctl: 'ENOKEY',
        setns: 'EBADF',
        mount: 'EFAULT',
        netlink_audit: 'EINVAL',
        netlink_route: 'ok',
        perf_event_open: 'EPERM',
        personality_without_randomisation: 'ENOSYS',
        personality_query: 'ok',
        // Allowed; it needs a capability that is not there.
        unshare_mounts: 'EPERM',
        unknown: 'ENOSYS',
        userfaultfd: 'EPERM',
      });
    });

    test('keeps its filter of system calls, whatever its image’s labels say', async () => {
      lab.compile('probe', PROBE);
      // A filter that allows everything, as crun takes it.
      const filter = Buffer.from([6, 0, 0, 0, 0, 0, 0xff, 0x7f]).toString('base64');
      const image = { Cmd: ['/bin/probe'], Labels: { 'run.oci.seccomp_bpf_data': filter } };
      const { stdout } = await run(lab, runtime, { image });
      expect(stdout).toContain('personality_without_randomisation ENOSYS');
    });

    test('gives a secret as a file and as a variable, and keeps neither on the disk', async () => {
      const value = `s3cret-${crypto.randomUUID()}`;
      const place = lab.next();
      const container = await create(lab, runtime, {
        ...place,
        options: {
          ...shell('cat /run/secrets/token; echo; echo "$KEY"; stat -c %a:%u /run/secrets/token; sleep 1000'),
          user: 'app',
        },
        secrets: [
          { kind: 'file', target: 'token', value: new Secret(Buffer.from(value)), mode: 0o400, uid: 1000 },
          { kind: 'env', name: 'KEY', value: new Secret(value) },
        ],
      });
      const found = () => Bun.spawnSync(['grep', '-rlaF', value, place.directory]).stdout.toString();
      expect(found()).toBe('');
      await container.start();
      const logs = container.readLogs({ follow: true });
      let text = '';
      while (text.split('\n').length < 4)
        text += Buffer.from((await logs.next()).value?.bytes ?? []).toString();
      await logs.return(undefined);
      expect(text).toBe(`${value}\n${value}\n400:1000\n`);
      // The output that the test asked for is in the log; nothing else has it.
      expect(found().trim()).toStartWith(join(place.directory, 'logs'));
      expect(found().trim().split('\n')).toHaveLength(1);
      await container.delete();
    });

    test('mounts what it is told to, writable or not', async () => {
      const shared = join(lab.directory, `shared-${name}`);
      mkdirSync(shared);
      writeFileSync(join(shared, 'given'), 'given\n');
      const { stdout, exit } = await run(lab, runtime, {
        options: {
          ...shell(
            'cat /ro/given; touch /ro/x 2>/dev/null || echo read-only; echo made > /rw/made; touch /t/x && echo tmpfs',
          ),
          mounts: [
            { type: 'bind', source: shared, target: '/ro', readOnly: true },
            { type: 'bind', source: shared, target: '/rw' },
            { type: 'tmpfs', target: '/t', sizeBytes: 65_536 },
          ],
        },
      });
      expect(exit.exitCode).toBe(0);
      expect(stdout).toBe('given\nread-only\ntmpfs\n');
      expect(await Bun.file(join(shared, 'made')).text()).toBe('made\n');
    });

    test('has a root file system that can be written, or not, and never changes the image', async () => {
      const script = 'echo x > /etc/new && echo written || echo refused; touch /dev/shm/y && echo shm';
      const writable = await run(lab, runtime, { options: shell(script) });
      expect(writable.stdout).toBe('written\nshm\n');
      const readOnly = await run(lab, runtime, {
        options: { ...shell(`(${script}) 2>/dev/null`), readOnly: true },
      });
      expect(readOnly.stdout).toBe('refused\nshm\n');
      expect(existsSync(join(lab.rootfs, 'etc/new'))).toBe(false);
    });

    test('has its own host name, hosts file and, unless asked otherwise, no network', async () => {
      const script =
        'cat /proc/sys/kernel/hostname /etc/hostname; head -n 1 /etc/hosts; tail -n +3 /proc/net/dev | tr -d " " | head -c 2';
      const own = await run(lab, runtime, { options: { ...shell(script), hostname: 'box' } });
      expect(own.stdout).toBe('box\nbox\n127.0.0.1\tlocalhost\nlo');
      const links = 'readlink /proc/self/ns/net';
      const none = await run(lab, runtime, { options: shell(links) });
      const host = await run(lab, runtime, { options: { ...shell(links), network: 'host' } });
      const here = Bun.spawnSync(['readlink', '/proc/self/ns/net']).stdout.toString();
      expect(host.stdout).toBe(here);
      expect(none.stdout).not.toBe(here);
    });
  });
}
