import { afterEach, beforeEach, expect, test } from 'bun:test';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ContentStore, layoutOfLayer } from '../../../src/content/index.ts';
import { buildImageIndex, indexLayer, openImageIndex } from '../../../src/index/index.ts';
import { Pins } from '../../../src/mounts/pins.ts';
import { createLogger, silentLogger } from '../../../src/observability/index.ts';
import { makeLayer, noise } from '../content/support/image.ts';

let directory: string;
let store: ContentStore;
let indexPath: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'imgcred-pins-'));
  store = await ContentStore.open(join(directory, 'cache'));
  const layer = makeLayer([{ name: 'file', bytes: noise(200_000, 1) }]);
  const built = await indexLayer(
    layer.source,
    (async function* () {
      yield layer.compressed;
    })(),
  );
  indexPath = join(directory, 'index');
  await writeFile(indexPath, buildImageIndex([built]));
  // The layer has a file, as after a first read of it.
  await store.release(store.layer(layoutOfLayer(openImageIndex(Bun.mmap(indexPath)), 0)));
});
afterEach(async () => {
  await store.close();
  await rm(directory, { recursive: true });
});

const content = (workspace_id = 'ws_1') => ({
  workspace_id,
  image_id: 'img_1',
  reference: 'registry.example.com/app:1',
  index_digest: 'a'.repeat(64),
  index_path: indexPath,
});
const open = () => new Pins(join(directory, 'pins'), store, silentLogger);

test('a pin keeps an image from eviction until it is removed, by id or reference', async () => {
  for (const named of ['img_1', 'registry.example.com/app:1']) {
    const pins = open();
    await pins.add(content());
    expect(store.prune()).toEqual({ bytes: 0, entries: 0 });
    await pins.remove('ws_1', named);
    expect(store.list().some((entry) => entry.live)).toBe(false);
  }
  expect(store.prune().entries).toBe(1);
});

test('pins outlast processes, and those of two workspaces are two', async () => {
  await open().add(content());
  await open().add(content('ws_2'));
  const pins = open();
  expect(new Set(pins.list().map((pin) => pin.workspace_id))).toEqual(new Set(['ws_1', 'ws_2']));
  await pins.remove('ws_1', 'img_1');
  expect(store.prune()).toEqual({ bytes: 0, entries: 0 });
  await pins.remove('ws_2', 'img_1');
  expect(store.prune().entries).toBe(1);
});

test('what is not pinned can’t be let go', async () => {
  expect(() => open().remove('ws_1', 'img_1')).toThrow('not pinned');
});

test('a record that is damaged, or whose index is gone, is said and passed over', async () => {
  await open().add(content());
  await writeFile(join(directory, 'pins', 'torn.json'), '{"workspace_id":');
  await rm(indexPath);
  const lines: string[] = [];
  const logger = createLogger({ level: 'warn', write: (line) => lines.push(line) });
  expect(new Pins(join(directory, 'pins'), store, logger).list()).toEqual([]);
  expect(lines).toHaveLength(2);
});
