import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { startFaultProxy, startRegistry } from '../../test/fixtures/registry/index.ts';
import { dropCaches, type Mark, median, output, type Suite, timed } from './mark.ts';

const EXECUTABLE = path.resolve(import.meta.dir, '../../dist/imgcred');
const USER = 'bench';
const PASSWORD = 'bench-password';
const LATENCY_MS = 10;
const BYTES_PER_SECOND = 12_500_000;
const CREDENTIALS = { REGISTRY_USERNAME: USER, REGISTRY_PASSWORD: PASSWORD };
const CREDS = ['--creds-env', 'REGISTRY_USERNAME,REGISTRY_PASSWORD'];
// podman's defaults are more than a session's hard limits may be.
const ULIMITS = ['--ulimit=nofile=1024:1024', '--ulimit=nproc=1024:1024'];
const NUMPY = ['/usr/bin/python3', '-c', 'import numpy; print(numpy.__version__)'];

/**
 * The marks of the lazy image, over a link of 10 ms and 12.5 MB/s: a real Debian with Python and numpy, against podman
 * pulling and running the same image. Takes root, podman, and some minutes the first time.
 */
export const suite: Suite = async (directory) => {
  const layout = path.join(directory, 'python');
  await output([path.resolve(import.meta.dir, '../make-debian-image'), layout, 'python3-numpy']);
  const registry = await startRegistry({ htpasswd: { [USER]: PASSWORD } });
  const proxy = await startFaultProxy(registry.url, {
    fault: () => ({ latencyMs: LATENCY_MS }),
    linkBytesPerSecond: BYTES_PER_SECOND,
  });
  const scratch = mkdtempSync(path.join(directory, 'image-'));
  try {
    const push = ['skopeo', 'copy', '--quiet', '--dest-creds', `${USER}:${PASSWORD}`, '--dest-tls-verify=false'];
    await output([...push, `oci:${layout}:latest`, `docker://${registry.host}/bench/python:1`]);
    const bench = new ImageBench(scratch, `${proxy.host}/bench/python:1`);
    return [...(await bench.coldStart()), ...(await bench.warmStart()), ...(await bench.unknownImage()), ...(await bench.sequential())];
  } finally {
    await proxy.stop();
    await registry.stop();
    // A mount is free once the last process that used it is gone, which may be a moment after we know that it ended.
    for (let attempt = 1; attempt <= 20 && !removed(scratch); attempt++) await Bun.sleep(250);
  }
};

/** Unmounts and removes a directory; false while something in it is in use. */
function removed(directory: string): boolean {
  for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n').reverse()) {
    const target = line.split(' ')[4] ?? '';
    if (target.startsWith(`${directory}/`)) Bun.spawnSync(['umount', '-l', target]);
  }
  try {
    rmSync(directory, { recursive: true, force: true });
    return true;
  } catch {
    return false;
  }
}

class ImageBench {
  readonly #scratch: string;
  readonly #reference: string;
  #count = 0;

  constructor(scratch: string, reference: string) {
    this.#scratch = scratch;
    this.#reference = reference;
  }

  /** A worker that has never seen the image: run, against pull and run. */
  async coldStart(): Promise<Mark[]> {
    const registered = this.#directory();
    await this.#imgcred(registered, 'image', 'add', this.#reference, '--keep', 'none', ...CREDS);
    let fetched = 0;
    const lazy = await median(3, async () => {
      rmSync(path.join(registered, 'worker'), { recursive: true, force: true });
      const begin = performance.now();
      const report = await this.#imgcred(registered, 'run', '--json', '--keep', 'none', this.#reference, '--', ...NUMPY);
      fetched = JSON.parse(report.slice(report.indexOf('{'))).fetch.bytes_fetched;
      return performance.now() - begin;
    });
    const podman = await this.#podman(NUMPY);
    const detail = `imgcred ${seconds(lazy)} (${(fetched / 1e6).toFixed(1)} MB), podman pull and run ${seconds(podman)}`;
    return [{ name: 'cold start of python3 -c "import numpy"', value: lazy / podman, unit: 'time', against: 'podman', most: 0.1, detail }];
  }

  /** The same once everything that it reads is here, against the runtime alone on an unpacked tree. */
  async warmStart(): Promise<Mark[]> {
    const directory = this.#directory();
    await this.#imgcred(directory, 'image', 'add', this.#reference, ...CREDS);
    const server = Bun.spawn([EXECUTABLE, 'serve', '--listen', 'none', '--data-dir', directory, '--log-level', 'error'], { stdio: ['ignore', 'ignore', 'inherit'] });
    try {
      await this.#imgcred(directory, 'run', this.#reference, '--', ...NUMPY);
      const warm = await median(7, () => timed([EXECUTABLE, 'run', '--data-dir', directory, this.#reference, '--', ...NUMPY]));
      const podman = await median(5, () => timed(['podman', ...this.#storage(), 'run', '--rm', '--network=none', '--cgroups=disabled', ...ULIMITS, this.#reference, ...NUMPY]));
      const detail = `imgcred ${seconds(warm)}, podman ${seconds(podman)}`;
      return [{ name: 'warm start of the same', value: warm / podman, unit: 'time', against: 'podman run', most: 1, detail }];
    } finally {
      server.kill();
      await server.exited;
    }
  }

  /** An image that this node has never heard of: register and run, against podman run. */
  async unknownImage(): Promise<Mark[]> {
    const lazy = await median(1, async () => {
      const directory = this.#directory();
      return timed([EXECUTABLE, 'run', '--data-dir', directory, ...(await this.#credentialsFile()), this.#reference, '--', ...NUMPY]);
    });
    const podman = await this.#podman(NUMPY);
    const detail = `imgcred ${seconds(lazy)}, podman ${seconds(podman)}`;
    return [{ name: 'first run of an unknown image', value: lazy / podman, unit: 'time', against: 'podman run', most: 1, detail }];
  }

  /** Every byte of the image through the mount, from cold, against pulling it and then reading it. */
  async sequential(): Promise<Mark[]> {
    const readAll = ['/bin/sh', '-c', 'tar --one-file-system -cf - / 2>/dev/null | cat > /dev/null'];
    const directory = this.#directory();
    await this.#imgcred(directory, 'image', 'add', this.#reference, '--keep', 'none', ...CREDS);
    const lazy = await timed([EXECUTABLE, 'run', '--keep', 'none', '--data-dir', directory, this.#reference, '--', ...readAll]);
    const podman = await this.#podman(readAll);
    const detail = `imgcred ${seconds(lazy)}, podman ${seconds(podman)}`;
    return [{ name: 'reading the whole image from cold', value: lazy / podman, unit: 'time', against: 'podman pull and read', most: 1.1, detail }];
  }

  async #podman(command: readonly string[]): Promise<number> {
    const storage = this.#storage(true);
    await dropCaches();
    const pull = ['podman', ...storage, 'pull', '--quiet', '--tls-verify=false', '--creds', `${USER}:${PASSWORD}`, this.#reference];
    const run = ['podman', ...storage, 'run', '--rm', '--network=none', '--cgroups=disabled', ...ULIMITS, this.#reference, ...command];
    return (await timed(pull)) + (await timed(run));
  }

  #storage(fresh = false): string[] {
    const root = path.join(this.#scratch, 'podman');
    if (fresh) {
      Bun.spawnSync(['podman', '--root', root, '--runroot', `${root}-run`, 'rmi', '--all', '--force'], { stdio: ['ignore', 'ignore', 'ignore'] });
    }
    mkdirSync(root, { recursive: true });
    // runc, since Debian's crun refuses machines with both versions of control groups.
    return ['--root', root, '--runroot', `${root}-run`, '--runtime=runc', '--cgroup-manager=cgroupfs', '--events-backend=none'];
  }

  async #credentialsFile(): Promise<string[]> {
    const file = path.join(this.#scratch, 'credentials');
    await Bun.write(file, Object.entries(CREDENTIALS).map(([key, value]) => `${key}=${value}\n`).join(''));
    return ['--creds-file', file];
  }

  async #imgcred(directory: string, ...args: readonly string[]): Promise<string> {
    const own = args[0] === 'run' ? 1 : 2;
    const command = [EXECUTABLE, ...args.slice(0, own), '--data-dir', directory, ...args.slice(own)];
    const child = Bun.spawn(command, { env: { ...process.env, ...CREDENTIALS }, stdio: ['ignore', 'pipe', 'pipe'] });
    const [code, out, err] = await Promise.all([child.exited, child.stdout.text(), child.stderr.text()]);
    if (code !== 0) throw new Error(`${command.join(' ')}: ${err}`);
    return out;
  }

  #directory(): string {
    return path.join(this.#scratch, `data-${this.#count++}`);
  }
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(2)} s`;
}
