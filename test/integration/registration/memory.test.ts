import { expect, test } from 'bun:test';
import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { digestOf } from '../../../src/reference/index.ts';
import { blocksOf, concat } from '../../fixtures/tree/index.ts';
import { referring } from '../../unit/index/support/data.ts';

const ENTRY = join(import.meta.dir, 'registering-process.ts');
const MIB = 1024 * 1024;
// Above this the two digests alone take longer than the test is worth; it is measured with IMGCRED_TEST_LAYER_GIB=10.
const GIB = Number(process.env.IMGCRED_TEST_LAYER_GIB ?? 1);
const PIECE = 16 * MIB;

// So many take a few seconds; IMGCRED_TEST_LAYER_FILES=1000000 shows that a million fit into 300 MiB.
const FILES = Number(process.env.IMGCRED_TEST_LAYER_FILES ?? 300_000);

/** A layer as it is sent: its parts in order, of which some may be one and the same. */
interface SentLayer {
  readonly packed: readonly Uint8Array[];
  readonly digest: string;
  readonly diffId: string;
  readonly size: number;
}

function sentLayer(plain: Iterable<Uint8Array>): SentLayer {
  const members = new Map<Uint8Array, Uint8Array>();
  const packed: Uint8Array[] = [];
  const [blob, diff] = [createHash('sha256'), createHash('sha256')];
  for (const part of plain) {
    const member = members.get(part) ?? gzipSync(part, { level: 1 });
    members.set(part, member);
    packed.push(member);
    diff.update(part);
    blob.update(member);
  }
  return {
    packed,
    digest: `sha256:${blob.digest('hex')}`,
    diffId: `sha256:${diff.digest('hex')}`,
    size: packed.reduce((sum, part) => sum + part.length, 0),
  };
}

/** A layer with one huge file, as a list of gzip members that is sent over and over: nobody ever holds it whole. */
function hugeLayer(seed: number): SentLayer {
  const piece = referring(PIECE, seed);
  const repeats = (GIB * 1024 * MIB) / PIECE;
  const [header] = blocksOf({ name: 'huge', sizeField: repeats * PIECE });
  return sentLayer([header ?? new Uint8Array(512), ...Array<Uint8Array>(repeats).fill(piece), END]);
}

/** A layer of one zstd frame, as most builders write it, which is unpacked as a stream. */
async function framedLayer(seed: number): Promise<SentLayer> {
  const repeats = (512 * MIB) / PIECE;
  const piece = referring(PIECE, seed);
  const [header] = blocksOf({ name: 'huge', sizeField: repeats * PIECE });
  const zstd = Bun.spawn(['zstd', '-1', '-q', '-c'], { stdin: 'pipe', stdout: 'pipe' });
  const packed = zstd.stdout.bytes();
  const diff = createHash('sha256');
  for (const part of [header ?? new Uint8Array(512), ...Array<Uint8Array>(repeats).fill(piece), END]) {
    diff.update(part);
    zstd.stdin.write(part);
    await zstd.stdin.flush();
  }
  await zstd.stdin.end();
  const blob = await packed;
  return {
    packed: [blob],
    digest: digestOf(blob),
    diffId: `sha256:${diff.digest('hex')}`,
    size: blob.length,
  };
}

/** A layer with so many small files, in directories of a thousand. */
function crowdedLayer(files: number): SentLayer {
  const parts = function* () {
    for (let first = 0; first < files; first += 1000) {
      const directory = `usr/share/number-${first / 1000}`;
      const inside = Array.from({ length: Math.min(1000, files - first) }, (_, n) => ({
        name: `${directory}/a-file-of-the-image-${first + n}.txt`,
        data: `${first + n}`,
      }));
      yield concat([{ name: `${directory}/`, type: '5' }, ...inside].flatMap(blocksOf));
    }
    yield END;
  };
  return sentLayer(parts());
}

const END = new Uint8Array(1024);

/** Registers an image of the layers in a process of its own, and gives the most memory that it took, in bytes. */
async function peakOfRegistering(
  layers: readonly SentLayer[],
  keep: 'none' | 'all',
  compression: 'gzip' | 'zstd' = 'gzip',
): Promise<number> {
  const directory = await mkdtemp(join(tmpdir(), 'imgcred-memory-'));
  const config = Buffer.from(
    JSON.stringify({
      os: 'linux',
      architecture: process.arch === 'arm64' ? 'arm64' : 'amd64',
      rootfs: { type: 'layers', diff_ids: layers.map(({ diffId }) => diffId) },
    }),
  );
  const manifest = JSON.stringify({
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    config: {
      mediaType: 'application/vnd.oci.image.config.v1+json',
      digest: digestOf(config),
      size: config.length,
    },
    layers: layers.map(({ digest, size }) => ({
      mediaType: `application/vnd.oci.image.layer.v1.tar+${compression}`,
      digest,
      size,
    })),
  });
  const server = Bun.serve({
    port: 0,
    hostname: '127.0.0.1',
    idleTimeout: 0,
    fetch(request) {
      const { pathname } = new URL(request.url);
      if (pathname === '/v2/') return new Response('{}');
      if (pathname.endsWith('/manifests/1')) {
        return new Response(manifest, {
          headers: { 'content-type': 'application/vnd.oci.image.manifest.v1+json' },
        });
      }
      if (pathname.endsWith(digestOf(config))) return new Response(config);
      const layer = layers.find(({ digest }) => pathname.endsWith(digest));
      if (layer === undefined) return new Response('{}', { status: 404 });
      let next = 0;
      const body = new ReadableStream<Uint8Array>(
        {
          pull(controller) {
            const part = layer.packed[next++];
            if (part === undefined) controller.close();
            else controller.enqueue(new Uint8Array(part));
          },
        },
        { highWaterMark: 1 },
      );
      return new Response(body, { headers: { 'content-length': String(layer.size) } });
    },
  });
  try {
    const child = Bun.spawn([process.execPath, ENTRY, directory, `127.0.0.1:${server.port}/large:1`, keep], {
      stdout: 'pipe',
      stderr: 'inherit',
    });
    const [word, , peak] = (await child.stdout.text()).trim().split(' ');
    expect(word).toBe('done');
    return Number(peak);
  } finally {
    await server.stop(true);
    await rm(directory, { recursive: true, force: true });
  }
}

test(
  `an image with two layers of ${GIB} GiB is registered in less than 300 MiB of memory`,
  async () => {
    const peak = await peakOfRegistering([hugeLayer(1), hugeLayer(7)], GIB > 2 ? 'none' : 'all');
    if (process.env.IMGCRED_TEST_LAYER_GIB !== undefined) console.log(`peak ${peak / MIB} MiB`);
    expect(peak / MIB).toBeLessThan(300);
  },
  Math.max(1, GIB) * 60_000,
);

test('two layers of one zstd frame each are registered and kept in less than 300 MiB of memory', async () => {
  const peak = await peakOfRegistering([await framedLayer(1), await framedLayer(7)], 'all', 'zstd');
  expect(peak / MIB).toBeLessThan(300);
}, 180_000);

// What the process takes for itself and its threads, and what it takes for a file: its name, and its place in the tree. A
// million must stay below 300 MiB.
const FILES_MOST_MIB = 180 + (FILES * 120) / MIB;

test(`a layer of ${FILES} files is registered in less than ${Math.round(FILES_MOST_MIB)} MiB of memory`, async () => {
  const peak = await peakOfRegistering([crowdedLayer(FILES)], 'none');
  if (process.env.IMGCRED_TEST_LAYER_FILES !== undefined) console.log(`peak ${peak / MIB} MiB`);
  expect(peak / MIB).toBeLessThan(FILES_MOST_MIB);
}, 300_000);
