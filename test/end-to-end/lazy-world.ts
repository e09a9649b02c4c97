import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Finished, type RunOptions, Sandbox, type Server } from '../fixtures/executable/index.ts';
import { busyboxLayer, layerOf } from '../fixtures/images/index.ts';
import {
  type FaultProxy,
  Pusher,
  type RegistryFixture,
  startFaultProxy,
  startRegistry,
} from '../fixtures/registry/index.ts';

const USER = 'reader';
const PASSWORD = 'open-sesame-42';
const FILES = 6;

/**
 * A registry behind a proxy that breaks what it is told to, an image in it with files of random bytes
 * (`/data/0`… of 5 MiB, `/bin` with a shell), and the executable on a data directory of its own.
 */
export interface LazyWorld extends AsyncDisposable {
  readonly sandbox: Sandbox;
  readonly registry: RegistryFixture;
  readonly proxy: FaultProxy;
  readonly pusher: Pusher;
  /** The image by the proxy's name. */
  readonly image: string;
  readonly imageBytes: number;
  /** Runs a command with the registry's password in its environment. */
  run(args: readonly string[], options?: RunOptions): Promise<Finished>;
  /** Runs a command that must succeed, and gives its JSON. */
  json(args: readonly string[]): Promise<unknown>;
  register(args?: readonly string[]): Promise<void>;
  serve(args?: readonly string[]): Promise<Server>;
  /** Lines of the mount server's log. */
  log(): Promise<Record<string, unknown>[]>;
}

export const CREDS = ['--creds-env', 'REGISTRY_USERNAME,REGISTRY_PASSWORD'];

export async function makeLazyWorld(): Promise<LazyWorld> {
  const registry = await startRegistry({ htpasswd: { [USER]: PASSWORD } });
  const proxy = await startFaultProxy(registry.url);
  const sandbox = await Sandbox.make();
  const files = Array.from({ length: FILES }, (_, n) => `head -c 5242880 /dev/urandom > data/${n}`);
  const layers = [await busyboxLayer(), await layerOf(`mkdir -p data; ${files.join('; ')}`)];
  const pusher = new Pusher(registry, USER, PASSWORD);
  const pushed = await pusher.image({
    repository: 'team/app',
    tag: 'v1',
    layers,
    config: { config: { Cmd: ['/bin/true'], Env: ['PATH=/bin'] } },
  });
  const env = { REGISTRY_USERNAME: USER, REGISTRY_PASSWORD: PASSWORD };
  const run = (args: readonly string[], runOptions: RunOptions = {}) =>
    sandbox.run(args, { ...runOptions, env: { ...env, ...runOptions.env } });
  const must = async (args: readonly string[]) => {
    const finished = await run(args);
    if (finished.code !== 0) throw new Error(`${args.join(' ')}: ${finished.code} ${finished.stderr}`);
    return finished.stdout;
  };
  const image = `${proxy.host}/team/app:v1`;
  return {
    sandbox,
    registry,
    proxy,
    pusher,
    image,
    imageBytes: pushed.layers.reduce((sum, layer) => sum + layer.size, 0),
    run,
    json: async (args) => JSON.parse(await must([...args, '--json'])),
    register: async (args = []) => {
      await must(['image', 'add', image, '--keep', 'none', '--index', 'local', ...CREDS, ...args]);
    },
    serve: (args = []) => sandbox.serve(['--prefetch', 'none', '--keep', 'none', ...args]),
    async log() {
      const text = await readFile(join(sandbox.dataDirectory, 'worker', 'mount-server.log'), 'utf8');
      return text
        .split('\n')
        .filter((line) => line.startsWith('{'))
        .map((line) => JSON.parse(line));
    },
    async [Symbol.asyncDispose]() {
      // What is mounted on the host would outlive all of it.
      proxy.fault = () => undefined;
      await sandbox[Symbol.asyncDispose]();
      await proxy.stop();
      await registry.stop();
    },
  };
}

/** Reads a file in a process of its own: a read that hangs must not hang the test. */
export async function readInProcess(path: string): Promise<{ code: number; sha256: string; stderr: string }> {
  const child = Bun.spawn(['sha256sum', path], { stdin: 'ignore', stdout: 'pipe', stderr: 'pipe' });
  const [out, stderr, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { code, sha256: out.split(' ')[0] ?? '', stderr };
}

/** Asks again until `look` answers something. */
export async function eventually<T>(look: () => Promise<T | undefined>): Promise<T> {
  for (;;) {
    const found = await look();
    if (found !== undefined) return found;
    await Bun.sleep(50);
  }
}
