import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  buildImageIndex,
  type ImageIndex,
  openImageIndex,
  validateImageIndex,
} from '../../../../src/index/index.ts';
import {
  indexTestLayer,
  snapshotDirectory,
  type TestLayer,
  type Tree,
  testLayer,
} from '../../../fixtures/tree/index.ts';

/** Runs a program, which must succeed. */
export function run(command: readonly string[], cwd?: string): string {
  const done = Bun.spawnSync([...command], { ...(cwd === undefined ? {} : { cwd }), stderr: 'pipe' });
  if (done.exitCode !== 0) throw new Error(`${command.join(' ')}: ${done.stderr.toString()}`);
  return done.stdout.toString();
}

/** A directory that is gone at the end of the block. */
export class TemporaryDirectory implements Disposable {
  readonly path = mkdtempSync(join(tmpdir(), 'imgcred-index-'));
  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

/** What umoci unpacks from the layers, one on the other; throws when it refuses them. */
export function unpackedByUmoci(tars: readonly Uint8Array[]): Tree {
  using directory = new TemporaryDirectory();
  const image = `${directory.path}/oci`;
  run(['umoci', 'init', '--layout', image]);
  run(['umoci', 'new', '--image', `${image}:t`]);
  tars.forEach((tar, at) => {
    const path = `${directory.path}/${at}.tar`;
    writeFileSync(path, tar);
    run(['umoci', 'raw', 'add-layer', '--image', `${image}:t`, path]);
  });
  run(['umoci', 'raw', 'unpack', '--image', `${image}:t`, `${directory.path}/root`]);
  return snapshotDirectory(`${directory.path}/root`);
}

/** The layers, indexed, merged, validated and opened. */
export async function indexOf(layers: readonly TestLayer[], spanSize = 65536): Promise<ImageIndex> {
  const indexed = [];
  for (const layer of layers) indexed.push(await indexTestLayer(layer, { spanSize }));
  const bytes = buildImageIndex(indexed);
  validateImageIndex(bytes);
  return openImageIndex(bytes);
}

/** The layers of an OCI layout's image, as a registry would serve them. */
export function layersOfLayout(layout: string, tag: string): TestLayer[] {
  const json = (path: string): unknown => JSON.parse(readFileSync(path, 'utf8'));
  const blob = (digest: string): string => `${layout}/blobs/${digest.replace(':', '/')}`;
  const index = json(`${layout}/index.json`) as {
    manifests: { digest: string; annotations?: Record<string, string> }[];
  };
  const found = index.manifests.find(
    ({ annotations }) => annotations?.['org.opencontainers.image.ref.name'] === tag,
  );
  if (found === undefined || !existsSync(blob(found.digest)))
    throw new Error(`${layout} has no image ${tag}`);
  const manifest = json(blob(found.digest)) as { layers: { digest: string; mediaType: string }[] };
  return manifest.layers.map(({ digest, mediaType }) => {
    const bytes = new Uint8Array(readFileSync(blob(digest)));
    const kind = mediaType.endsWith('gzip') ? 'gzip' : mediaType.endsWith('zstd') ? 'zstd' : 'none';
    const decompressor = kind === 'gzip' ? 'gzip' : 'zstd';
    const tar =
      kind === 'none' ? bytes : new Uint8Array(Bun.spawnSync([decompressor, '-dc', blob(digest)]).stdout);
    return testLayer(tar, kind, bytes);
  });
}
