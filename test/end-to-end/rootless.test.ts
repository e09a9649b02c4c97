import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { systemErrorCode } from '../../src/errors/index.ts';
import { mountsBelow } from '../fixtures/executable/index.ts';
import { busyboxLayer, layerOf } from '../fixtures/images/index.ts';
import { OrdinaryUser } from '../fixtures/ordinary-user/index.ts';
import { type PushedImage, Pusher, type RegistryFixture, startRegistry } from '../fixtures/registry/index.ts';

const PASSWORD = 'Qy7-rootless-unmistakable-4410';
const CREDS = ['--creds-env', 'REGISTRY_USERNAME,REGISTRY_PASSWORD'];
const ENV = { REGISTRY_USERNAME: 'user', REGISTRY_PASSWORD: PASSWORD };

let registry: RegistryFixture;
let image: PushedImage;

beforeAll(async () => {
  registry = await startRegistry({ htpasswd: { user: PASSWORD } });
  const layers = [
    await busyboxLayer(),
    await layerOf(`
      mkdir -p srv/kept srv/replaced bin
      for name in mv rm mkdir rmdir chown kill readlink; do ln -s busybox bin/$name; done
      echo theirs > srv/theirs; chown 33:42 srv/theirs; chmod 2640 srv/theirs
      echo program > srv/program; chown 33:33 srv/program; chmod 4755 srv/program
      echo old > srv/kept/file; echo old > srv/replaced/file
      head -c 3000000 /dev/urandom > srv/ballast`),
  ];
  image = await new Pusher(registry, 'user', PASSWORD).image({ repository: 'app', tag: '1', layers });
}, 120_000);

afterAll(async () => {
  await registry?.stop();
});

/** Nothing where the process has ended meanwhile, as those do that a container's loop starts. */
function textOf(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (thrown) {
    if (['ENOENT', 'ESRCH'].includes(systemErrorCode(thrown) ?? '')) return '';
    throw thrown;
  }
}

const KINDS = [
  { name: 'with subordinate ids', options: { uid: 48_101, subordinate: 2_000_000_000 }, many: true },
  { name: 'without subordinate ids', options: { uid: 48_102 }, many: false },
] as const;

for (const { name, options, many } of KINDS) {
  describe(`an ordinary user ${name}`, () => {
    let user: OrdinaryUser;
    const inside = (script: string, ...flags: string[]) =>
      user.run(['run', ...flags, image.reference, '--', '/bin/sh', '-c', script]);

    beforeAll(async () => {
      user = await OrdinaryUser.make(options);
      const added = await user.run(['image', 'add', image.reference, ...CREDS], { env: ENV });
      expect(added).toMatchObject({ code: 0 });
    }, 120_000);

    afterAll(async () => {
      await user?.[Symbol.asyncDispose]();
    });

    test('runs containers, in which it is root', async () => {
      const { code, stdout, stderr } = await inside('id -u; id -g; echo err >&2; exit 7');
      expect({ code, stdout, stderr }).toEqual({ code: 7, stdout: '0\n0\n', stderr: 'err\n' });
    });

    test('has the usual exit codes', async () => {
      expect((await inside('kill -9 1; kill -TERM $$; exec sleep 0')).code).toBe(0);
      expect((await user.run(['run', image.reference, '--', '/bin/nonesuch'])).code).toBe(127);
      expect((await user.run(['run', image.reference, '--', '/etc/passwd'])).code).toBe(126);
    });

    test('sees who owns the image’s files, as far as there are such ids', async () => {
      const { stdout } = await inside('stat -c "%u:%g %a" /srv/theirs /srv/program; cat /srv/theirs');
      expect(stdout).toBe(many ? '33:42 2640\n33:33 4755\ntheirs\n' : '0:0 640\n0:0 755\ntheirs\n');
    });

    test('writes, moves, replaces and removes what is in the image', async () => {
      const script = `
        set -e; cd /srv
        echo new > theirs; cat theirs
        mv kept moved; cat moved/file; ls -d kept 2>/dev/null || true
        rm -r replaced; mkdir replaced; ls replaced
        mkdir /made; touch /made/file; stat -c %u /made/file
        echo x > /dev/null; head -c 4 /dev/urandom | wc -c`;
      const { code, stdout, stderr } = await inside(script);
      expect({ code, stdout, stderr }).toEqual({ code: 0, stdout: 'new\nold\n0\n4\n', stderr: '' });
    });

    test('runs as another user of the image where there are ids for it, else hears why not', async () => {
      const { code, stdout, stderr } = await inside('id', '--user', 'app');
      if (many) expect(stdout).toMatch(/^uid=1000\(app\) gid=1000\(app\) groups=.*2000\(extra\)\n$/);
      else {
        expect(code).toBe(125);
        expect(stderr).toContain("the container can't run as user 1000");
        expect(stderr).toContain('--add-subuids');
      }
    });

    test('runs with the machine’s network, whose devices it sees', async () => {
      const { stdout } = await inside('ls /sys/class/net', '--network', 'host');
      expect(stdout).toContain('lo\n');
    });

    test('fetches nothing twice', async () => {
      await inside('sha256sum /srv/ballast');
      const again = await inside('sha256sum /srv/ballast', '--json');
      expect(JSON.parse(again.stdout.slice(again.stdout.indexOf('{'))).fetch).toMatchObject({
        bytes_fetched: 0,
        driver: 'kernel',
      });
    });

    test('gives a credential by standard input, though the process has been replaced meanwhile', async () => {
      const text = JSON.stringify({ REGISTRY_USERNAME: 'user', REGISTRY_PASSWORD: PASSWORD });
      const data = ['--data-dir', join(user.home, 'other')];
      const added = await user.run(['image', 'add', image.reference, '--creds-stdin', ...data], {
        stdin: text,
      });
      expect(added).toMatchObject({ code: 0 });
      const wrong = await user.run(['image', 'add', image.reference, '--creds-stdin', ...data], {
        stdin: text.replace(PASSWORD, 'wrong'),
      });
      expect(wrong.code).toBe(4);
    });

    test('ends a container by a signal to the command it has started', async () => {
      const child = user.spawn([
        'run',
        image.reference,
        '--',
        '/bin/sh',
        '-c',
        'trap "exit 9" TERM; echo up; while :; do sleep 0.1; done',
      ]);
      const reader = child.stdout.getReader();
      expect(Buffer.from((await reader.read()).value ?? []).toString()).toBe('up\n');
      child.kill('SIGTERM');
      expect(await child.exited).toBe(9);
    });

    test('leaves a container running with --detach, for its next commands', async () => {
      const script = 'trap "exit 6" TERM; echo up; while :; do sleep 0.1; done';
      const run = await inside(script, '--detach', '--name', 'left');
      expect(run).toMatchObject({ code: 0, stderr: '' });
      expect((await user.run(['ps', '-q'])).stdout).toBe(run.stdout);
      while (!(await user.run(['logs', 'left'])).stdout.includes('up')) await Bun.sleep(20);
      expect((await user.run(['exec', 'left', '--', '/bin/echo', 'inside'])).stdout).toBe('inside\n');
      expect(await user.run(['stop', 'left'])).toMatchObject({ code: 0, stdout: 'left\n' });
      expect((await user.run(['wait', run.stdout.trim()])).code).toBe(6);
    }, 60_000);

    test('finds itself able to run containers', async () => {
      const { stdout } = await user.run(['doctor', '--json']);
      const { ready, findings } = JSON.parse(stdout);
      expect(ready).toBe(true);
      const named = (wanted: string) => findings.find((finding: { name: string }) => finding.name === wanted);
      expect(named('rootless')).toMatchObject({
        status: many ? 'ok' : 'warn',
        facts: { users: many ? 65_537 : 1 },
      });
      expect(named('fuse driver').facts).toMatchObject({ driver: 'kernel', mounting: 'mount' });
    });

    test('mounts at directories of its own, for all of its processes to see', async () => {
      // One shell: each command of this test has a mount name space of its own.
      const { code, stdout, stderr } = await user.shell(`
        cd ${user.home}; mkdir dir; imgcred() { ${user.directory}/imgcred "$@"; }
        export HOME=${user.home}
        imgcred mount ${image.reference} dir
        cat dir/srv/kept/file; cat dir/srv/theirs 2>/dev/null; stat -c %u:%g:%a dir/srv/theirs; head -c 10 dir/srv/ballast | wc -c
        touch dir/new 2>/dev/null; echo "touch $?"
        imgcred mount ls | grep -o " ${user.home}/dir  *kernel" | tr -s ' '
        imgcred run ${image.reference} -- /bin/cat /srv/theirs
        imgcred mount ${image.reference} dir 2>/dev/null; echo "again $?"
        (cd dir; exec sleep 600) & sleeper=$!
        until [ "$(readlink /proc/$sleeper/cwd)" = ${user.home}/dir ]; do sleep 0.05; done
        imgcred umount dir 2>/dev/null; echo "busy $?"
        imgcred umount --force dir; kill $sleeper
        ls -A dir; rmdir dir; echo gone`);
      expect({ code, stdout, stderr }).toEqual({
        code: 0,
        stdout: `${image.reference} is mounted at ${user.home}/dir (driver kernel)
old
33:42:2640
10
touch 1
 ${user.home}/dir kernel
theirs
again 6
busy 6
${user.home}/dir
gone
`,
        stderr: '',
      });
    }, 60_000);

    test('keeps nothing running and nothing mounted, and can remove what it kept', async () => {
      await user.settled();
      expect(await mountsBelow(user.directory)).toEqual([]);
      expect(await user.shell(`rm -rf ${user.home}/other && ls -A ${user.home}`)).toMatchObject({
        code: 0,
        stdout: '.local\n',
      });
    });

    test('has a server whose containers outlive its parts, which the next one takes over', async () => {
      const ready = async () => {
        const child = user.spawn(['serve', '--listen', 'none']);
        const reader = child.stderr.getReader();
        for (let log = ''; !log.includes('"ready"'); ) {
          const { value, done } = await reader.read();
          if (done) throw new Error(log);
          log += Buffer.from(value).toString();
        }
        return child;
      };
      const count = async () =>
        Number((await user.run(['container', 'logs', id])).stdout.trim().split('\n').at(-1));
      const counted = async (least: number) => {
        while (!((await count()) >= least)) await Bun.sleep(20);
      };
      const first = await ready();
      const script =
        'i=0; while sha256sum /srv/ballast >/dev/null; do i=$((i+1)); echo $i; sleep 0.05; done; echo -1';
      const started = await user.run(['run', '--detach', image.reference, '--', '/bin/sh', '-c', script]);
      const id = started.stdout.trim();
      await counted(1);

      for (const { pid } of user.processes()) {
        const kept = ['cmdline', 'environ'].map((file) => textOf(`/proc/${pid}/${file}`)).join();
        expect(kept).not.toContain(PASSWORD);
      }
      expect((await user.shell(`grep -rlF ${PASSWORD} ${user.home}`)).stdout).toBe('');
      expect(await mountsBelow(user.directory)).toEqual([]);

      const server = user.processes().find(({ command }) => command.includes('internal-mount-server'));
      process.kill(server?.pid ?? 0, 'SIGKILL');
      await counted((await count()) + 3);

      first.kill('SIGKILL');
      await first.exited;
      const second = await ready();
      await counted((await count()) + 3);
      const stopped = await user.run(['container', 'stop', '--kill', id]);
      expect(stopped.code).toBe(0);
      expect((await user.run(['container', 'wait', id])).code).toBe(137);
      second.kill('SIGTERM');
      expect(await second.exited).toBe(0);
    }, 120_000);

    test('cleans up after a worker that was killed with its containers, and can remove everything', async () => {
      const child = user.spawn([
        'run',
        image.reference,
        '--',
        '/bin/sh',
        '-c',
        `mkdir /made; ${many ? 'chown 5:6 /made;' : ''} touch /made/file; echo up; exec sleep 600`,
      ]);
      await child.stdout.getReader().read();
      for (const { pid } of user.processes()) process.kill(pid, 'SIGKILL');
      await child.exited;
      while (user.processes().length > 0) await Bun.sleep(5);
      expect((await inside('echo again')).stdout).toBe('again\n');
      await user.settled();
      expect(await user.shell(`rm -rf ${user.home}/.local && ls -A ${user.home}`)).toMatchObject({
        code: 0,
        stdout: '',
      });
    }, 120_000);
  });
}

test('an ordinary user’s mount brings what earlier starts of the image touched', async () => {
  const layers = [await busyboxLayer(), await layerOf('head -c 9000000 /dev/urandom > ballast')];
  const { reference } = await new Pusher(registry, 'user', PASSWORD).image({
    repository: 'large',
    tag: '1',
    layers,
  });
  await using user = await OrdinaryUser.make({ uid: 48_104, subordinate: 2_020_000_000 });
  const added = await user.run(['image', 'add', reference, '--keep', 'none', ...CREDS], { env: ENV });
  expect(added).toMatchObject({ code: 0 });
  const { code, stdout, stderr } = await user.shell(`
    cd ${user.home}; mkdir dir; imgcred() { ${user.directory}/imgcred "$@"; }
    export HOME=${user.home}
    imgcred run ${reference} -- /bin/head -c 10 /ballast > /dev/null
    imgcred cache prune > /dev/null
    imgcred mount ${reference} dir > /dev/null
    until imgcred mount ls --json | grep -q '"trace": *[1-9]'; do sleep 0.05; done
    imgcred mount ls --json | grep -c small-image
    imgcred umount dir > /dev/null`);
  expect({ code, stdout, stderr }).toMatchObject({ stdout: '0\n', stderr: '' });
}, 60_000);

describe('a user to whom /dev/fuse is closed', () => {
  test('hears that at once, and from doctor', async () => {
    await using user = await OrdinaryUser.make({ uid: 48_103, fuse: false });
    const { code, stderr } = await user.run(['run', image.reference]);
    // As podman: `run` has no other code for a failure of its own.
    expect(code).toBe(125);
    expect(stderr).toStartWith('imgcred: /dev/fuse is closed to this user\n  chmod 0666 /dev/fuse');
    const mounted = await user.run(['mount', image.reference, user.home]);
    expect(mounted).toMatchObject({ code: 14, stderr: expect.stringContaining('closed to this user') });
    const { findings } = JSON.parse((await user.run(['doctor', '--json'])).stdout);
    expect(findings.find((finding: { name: string }) => finding.name === '/dev/fuse').status).toBe('fail');
  });
});
