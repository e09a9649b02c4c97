import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { type FaultProxy, startFaultProxy, startRegistry } from '../../test/fixtures/registry/index.ts';
import { Imgcred, type RunReport } from './executable.ts';
import { chunkedLayout, largeLayout, PASSWORD, push, pushSmall, USER, unpacked } from './images.ts';
import { type Mark, type Measured, middle, output, type Suite } from './mark.ts';
import { bytesRead, runOnOverlay } from './overlay.ts';
import { Podman } from './podman.ts';

const LATENCY_MS = 10;
const BYTES_PER_SECOND = 12_500_000;
const CREDENTIALS = { REGISTRY_USERNAME: USER, REGISTRY_PASSWORD: PASSWORD };
// Says how long the import took, in milliseconds.
const NUMPY = ['/usr/bin/python3', '-c', 'import time; begin = time.time(); import numpy; print((time.time() - begin) * 1000)'];
const READ_ALL = ['/bin/sh', '-c', 'tar --one-file-system -cf - / 2>/dev/null | cat > /dev/null'];
const READ_SMALL = ['/bin/sh', '-c', 'cat /data/* > /dev/null'];
const TAG = '1';

/**
 * The marks of the lazy image, over a line of 10 ms and 12.5 MB/s that all connections share: a real Debian with Python
 * and numpy, against podman pulling and running the same image. Takes root, podman, and some minutes.
 */
export const suite: Suite = async (directory) => {
  const layout = await largeLayout(directory);
  const tree = await unpacked(layout);
  const scratch = mkdtempSync(path.join(directory, 'image-'));
  await using registry = await startRegistry({ htpasswd: { [USER]: PASSWORD } });
  await using proxy = await startFaultProxy(registry.url, {
    fault: () => ({ latencyMs: LATENCY_MS }),
    linkBytesPerSecond: BYTES_PER_SECOND,
  });
  try {
    const bench = new ImageBench(scratch, tree, proxy);
    await pushSmall(registry, 'bench/small', TAG);
    const small = await bench.small(`${proxy.host}/bench/small:${TAG}`);
    // Later: while the disk takes a gigabyte in, who makes sure of what it writes waits for it.
    await push(layout, registry.host, `bench/large:${TAG}`);
    await push(await chunkedLayout(layout), registry.host, `bench/chunked:${TAG}`);
    await output(['sync']);
    return [
      ...small,
      ...(await bench.large(`${proxy.host}/bench/large:${TAG}`, 'gzip')),
      ...(await bench.large(`${proxy.host}/bench/chunked:${TAG}`, 'zstd:chunked, by its own table')),
    ];
  } finally {
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
  readonly podman: Podman;
  #count = 0;

  constructor(
    private readonly scratch: string,
    private readonly tree: string,
    private readonly proxy: FaultProxy,
  ) {
    this.podman = new Podman(path.join(scratch, 'podman'), USER, PASSWORD);
  }

  async small(image: string): Promise<Mark[]> {
    const unknown: number[] = [];
    const podman: number[] = [];
    for (let round = 0; round < 5; round++) {
      unknown.push((await this.#fresh().run(image, READ_SMALL)).took);
      podman.push((await this.podman.pull(image)) + (await this.podman.run(image, READ_SMALL)).took);
      await this.podman.forget();
    }
    return [
      ratio('5 MB image: register, run, read all of it', middle(unknown), 'podman pull and run', middle(podman), 1.1),
    ];
  }

  async large(image: string, kind: string): Promise<Mark[]> {
    const named = (name: string) => `${kind}: ${name}`;
    const warm = this.#fresh();
    const unknown = (await warm.run(image, NUMPY)).took;
    // Images of the same layers share them, however each was compressed.
    await this.podman.forget();
    const pull = await this.podman.pull(image);
    const first = (await this.podman.run(image, NUMPY)).took;
    const readUnpacked = (await this.podman.run(image, READ_ALL)).took;
    const cold = this.#fresh();
    await cold.add(image, 'none');
    const starts: RunReport[] = [];
    const traced: RunReport[] = [];
    for (let round = 0; round < 3; round++) {
      starts.push(await this.#fromCold(cold, image, NUMPY));
      traced.push(await this.#onAnother(cold, image, NUMPY));
    }
    const read = await bytesRead(this.tree, NUMPY);
    const all = await this.#fromCold(cold, image, READ_ALL);
    const pulled = `of ${seconds(pull)} for pulling and ${seconds(first)} for running`;
    const fetched = (name: string, { bytes_fetched: bytes, requests }: RunReport): Mark => {
      const detail = `fetched ${megabytes(bytes)} compressed in ${requests} requests, reads ${megabytes(read)}`;
      return { name: named(`bytes fetched for ${name}`), value: bytes / read, unit: 'bytes', against: 'bytes that it reads', detail };
    };
    return [
      ratio(named('cold start of python3 -c "import numpy"'), middle(starts.map(({ took }) => took)), 'podman pull and run', pull + first, 0.1, pulled),
      ratio(named('the same, where another machine has run it'), middle(traced.map(({ took }) => took)), 'where none has', middle(starts.map(({ took }) => took)), 0.9),
      ...starts.slice(0, 1).map((start) => fetched('it', start)),
      ...traced.slice(0, 1).map((start) => fetched('it, where another machine has run it', start)),
      ratio(named('first run of an unknown image'), unknown, 'podman pull and run', pull + first, 1),
      ratio(named('reading all of the image from cold'), all.took, 'podman pull and read', pull + readUnpacked, 1.1, `${megabytes(all.bytes_fetched)} in ${all.requests} requests`),
      ...(await this.#warm(warm, image, named)),
    ];
  }

  /** The second run, where all that it reads is here: against podman, and against the least that a container takes. */
  async #warm(imgcred: Imgcred, image: string, named: (name: string) => string): Promise<Mark[]> {
    const once = (command: readonly string[], rounds: number) =>
      imgcred.serving(async () => {
        await imgcred.run(image, command);
        const runs = { ours: [] as Measured[], podman: [] as Measured[], overlay: [] as Measured[] };
        for (let round = 0; round < rounds; round++) {
          runs.ours.push(await imgcred.run(image, command));
          runs.podman.push(await this.podman.run(image, command));
          runs.overlay.push(await runOnOverlay(this.tree, this.scratch, command));
        }
        return runs;
      });
    const took = (runs: readonly Measured[]) => middle(runs.map((run) => run.took));
    const inside = (runs: readonly Measured[]) => middle(runs.map((run) => Number(run.said)));
    const start = await once(NUMPY, 9);
    const all = await once(READ_ALL, 3);
    const unpackedTree = 'overlayfs on an unpacked tree';
    return [
      ratio(named('second run, the import in the container'), inside(start.ours), unpackedTree, inside(start.overlay)),
      ratio(named('second run, from the command to its end'), took(start.ours), `crun, ${unpackedTree}`, took(start.overlay)),
      ratio(named('the same'), took(start.ours), 'podman run', took(start.podman), 1),
      ratio(named('second reading of all'), took(all.ours), `crun, ${unpackedTree}`, took(all.overlay)),
    ];
  }

  /** A run on a worker that has nothing of the image, where no start of it was recorded. */
  async #fromCold(imgcred: Imgcred, image: string, command: readonly string[]): Promise<RunReport> {
    await imgcred.forget(image);
    await imgcred.add(image, 'none');
    return this.#onAnother(imgcred, image, command);
  }

  /** A run on a worker that has nothing of the image; what starts elsewhere touched came with the request. */
  #onAnother(imgcred: Imgcred, image: string, command: readonly string[]): Promise<RunReport> {
    rmSync(path.join(imgcred.directory, 'worker'), { recursive: true, force: true });
    return imgcred.report(image, command);
  }

  #fresh(): Imgcred {
    return new Imgcred(path.join(this.scratch, `data-${this.#count++}`), CREDENTIALS);
  }
}

function ratio(name: string, ours: number, against: string, theirs: number, most?: number, more = ''): Mark {
  const detail = `imgcred ${seconds(ours)}, ${against} ${seconds(theirs)}${more === '' ? '' : `; ${more}`}`;
  return { name, value: ours / theirs, unit: 'time', against, detail, ...(most === undefined ? {} : { most }) };
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(2)} s`;
}

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}
