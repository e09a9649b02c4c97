import { expect, test } from 'bun:test';
import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { digestOf } from '../../../src/reference/index.ts';
import { blocksOf } from '../../fixtures/tree/index.ts';

const ENTRY = join(import.meta.dir, 'registering-process.ts');
const MIB = 1024 * 1024;
// Above this the two digests alone take longer than the test is worth; it is measured with IMGCRED_TEST_LAYER_GIB=10.
const GIB = Number(process.env.IMGCRED_TEST_LAYER_GIB ?? 0.5);
const PIECE = 16 * MIB;

/** A layer with one huge file, as a list of gzip members that is sent over and over: nobody ever holds it whole. */
function hugeLayer(seed: number) {
  const piece = new Uint8Array(PIECE);
  // One byte in eight is noise: it compresses about six times.
  for (let i = 0; i < PIECE; i += 8) piece[i] = (Math.imul(i + seed, 2654435761) >>> 13) & 0xff;
  const repeats = (GIB * 1024 * MIB) / PIECE;
  const size = repeats * PIECE;
  const [header] = blocksOf({ name: 'huge', sizeField: size });
  const plain = [
    header ?? new Uint8Array(512),
    ...Array<Uint8Array>(repeats).fill(piece),
    new Uint8Array(1024),
  ];
  const members = new Map(plain.map((part) => [part, gzipSync(part, { level: 1 })]));
  const hash = (parts: readonly Uint8Array[]) => {
    const sum = createHash('sha256');
    for (const part of parts) sum.update(part);
    return `sha256:${sum.digest('hex')}`;
  };
  const packed = plain.map((part) => members.get(part) ?? part);
  return {
    packed,
    digest: hash(packed),
    diffId: hash(plain),
    size: packed.reduce((sum, part) => sum + part.length, 0),
  };
}

test(
  `an image with two layers of ${GIB} GiB is registered in less than 300 MiB of memory`,
  async () => {
    const directory = await mkdtemp(join(tmpdir(), 'imgcred-memory-'));
    const layers = [hugeLayer(1), hugeLayer(7)];
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
        mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
        digest,
        size,
      })),
    });
    const server = Bun.serve({
      port: 0,
      hostname: '127.0.0.1',
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
      const child = Bun.spawn(
        [process.execPath, ENTRY, directory, `127.0.0.1:${server.port}/huge:1`, GIB > 2 ? 'none' : 'all'],
        { stdout: 'pipe', stderr: 'inherit' },
      );
      const [word, , peak] = (await child.stdout.text()).trim().split(' ');
      expect(word).toBe('done');
      if (process.env.IMGCRED_TEST_LAYER_GIB !== undefined) console.log(`peak ${Number(peak) / MIB} MiB`);
      expect(Number(peak) / MIB).toBeLessThan(300);
    } finally {
      await server.stop(true);
      await rm(directory, { recursive: true, force: true });
    }
  },
  Math.max(1, GIB) * 60_000,
);
