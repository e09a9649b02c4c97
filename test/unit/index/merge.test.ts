import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import {
  buildImageIndex,
  type ImageIndex,
  openImageIndex,
  validateImageIndex,
} from '../../../src/index/index.ts';
import {
  indexTestLayer,
  snapshotIndex,
  type TarSpec,
  type Tree,
  tarOf,
  testLayer,
} from '../../fixtures/tree/index.ts';

async function merged(layers: readonly (readonly TarSpec[])[]): Promise<ImageIndex> {
  const indexed = [];
  for (const specs of layers) indexed.push(await indexTestLayer(testLayer(tarOf(specs))));
  const bytes = buildImageIndex(indexed);
  validateImageIndex(bytes);
  return openImageIndex(bytes);
}

/** One layer as a program would make it: a tree of its own, and what it hides of the layers below. */
interface ModelLayer {
  /** Path → mode of a directory, or the number of a file; paths with the same number are one file. */
  readonly tree: ReadonlyMap<string, { directory: boolean; number: number }>;
  readonly hidden: readonly string[];
  readonly opaque: readonly string[];
  /** Sorts the entries of the archive. */
  readonly shuffle: readonly number[];
}

const NAMES = ['a', 'b', 'c', 'dd'];
const path = fc
  .array(fc.constantFrom(...NAMES), { minLength: 1, maxLength: 3 })
  .map((parts) => parts.join('/'));

const layer: fc.Arbitrary<ModelLayer> = fc
  .record({
    files: fc.array(fc.tuple(path, fc.integer({ min: 0, max: 5 })), { maxLength: 8 }),
    directories: fc.array(fc.tuple(path, fc.integer({ min: 0, max: 0o777 })), { maxLength: 4 }),
    hidden: fc.array(path, { maxLength: 4 }),
    opaque: fc.array(path, { maxLength: 2 }),
    shuffle: fc.array(fc.nat(), { minLength: 40, maxLength: 40 }),
  })
  .map(({ files, directories, hidden, opaque, shuffle }) => {
    const tree = new Map<string, { directory: boolean; number: number }>();
    for (const [name, number] of directories) {
      for (const above of [...ancestors(name), name]) tree.set(above, { directory: true, number });
    }
    for (const [name, number] of files) {
      if (tree.has(name)) continue;
      const above = ancestors(name);
      if (above.some((dir) => tree.get(dir)?.directory === false)) continue;
      for (const dir of above) if (!tree.has(dir)) tree.set(dir, { directory: true, number: 0o755 });
      tree.set(name, { directory: false, number });
    }
    return { tree, hidden, opaque: opaque.filter((dir) => tree.get(dir)?.directory === true), shuffle };
  });

function ancestors(name: string): string[] {
  const parts = name.split('/');
  return parts.slice(1).map((_, i) => parts.slice(0, i + 1).join('/'));
}

/**
 * The archive of a layer, its entries in any order; all but one name of a file are hard links to another. Where there
 * are lower layers a link comes behind its target: before it, it would be one to the lower layer's file of that name.
 */
function archiveOf(model: ModelLayer, number: number): TarSpec[] {
  const specs: TarSpec[] = [];
  const first = new Map<number, string>();
  const targets = new Map<TarSpec, string>();
  for (const [name, node] of model.tree) {
    if (node.directory) specs.push({ name: `${name}/`, type: '5', mode: node.number });
    else if (!first.has(node.number)) {
      first.set(node.number, name);
      specs.push({ name, data: `layer ${number} file ${node.number}` });
    } else {
      const link = { name, type: '1', link: first.get(node.number) ?? '' };
      if (number > 0) targets.set(link, link.link);
      specs.push(link);
    }
  }
  for (const name of model.hidden) specs.push({ name: name.replace(/[^/]*$/, '.wh.$&') });
  for (const name of model.opaque) specs.push({ name: `${name}/.wh..wh..opq` });
  const keys = specs.map((_, at) => model.shuffle[at % model.shuffle.length] ?? 0);
  const keyOf = (spec: TarSpec, at: number): number => {
    const target = specs.findIndex(({ name, type }) => name === targets.get(spec) && type === undefined);
    return Math.max(keys[at] ?? 0, keys[target] ?? 0);
  };
  return specs
    .map((spec, at) => ({ spec, key: keyOf(spec, at) }))
    .sort((a, b) => a.key - b.key)
    .map(({ spec }) => spec);
}

/** What the image-spec says, the slow way: first a layer hides, then it covers. */
function modelTree(layers: readonly ModelLayer[]): Map<string, string> {
  let tree = new Map<string, string>();
  layers.forEach((model, number) => {
    const gone = (name: string) =>
      model.hidden.some((hidden) => name === hidden || name.startsWith(`${hidden}/`)) ||
      model.opaque.some((opaque) => name.startsWith(`${opaque}/`));
    tree = new Map([...tree].filter(([name]) => !gone(name)));
    for (const [name, node] of model.tree) {
      const covers = node.directory && tree.get(name)?.startsWith('directory') === true;
      if (!covers)
        tree = new Map([...tree].filter(([below]) => !below.startsWith(`${name}/`) || model.tree.has(below)));
      if (!node.directory) tree = new Map([...tree].filter(([below]) => !below.startsWith(`${name}/`)));
      tree.set(name, node.directory ? `directory ${node.number}` : `layer ${number} file ${node.number}`);
    }
  });
  return tree;
}

function describeTree(tree: Tree, contents: ReadonlyMap<string, string>): Map<string, string> {
  const found = new Map<string, string>();
  for (const [name, node] of tree) {
    if (name !== '')
      found.set(
        name,
        node.type === 'directory' ? `directory ${node.mode}` : (contents.get(node.sha256) ?? '?'),
      );
  }
  return found;
}

const sorted = (tree: Map<string, string>) => [...tree].sort(([a], [b]) => (a < b ? -1 : 1));

test('any layers merge to what the image-spec says, and links stay links', async () => {
  const contents = new Map<string, string>();
  for (let number = 0; number < 4; number++) {
    for (let file = 0; file <= 5; file++) {
      const text = `layer ${number} file ${file}`;
      contents.set(new Bun.CryptoHasher('sha256').update(text).digest('hex'), text);
    }
  }
  await fc.assert(
    fc.asyncProperty(fc.array(layer, { minLength: 1, maxLength: 4 }), async (layers) => {
      const tree = snapshotIndex(await merged(layers.map(archiveOf)));
      const expected = modelTree(layers);
      expect(sorted(describeTree(tree, contents))).toEqual(sorted(expected));
      for (const [name, node] of tree) {
        const names = [...expected.values()].filter((content) => content === expected.get(name)).length;
        const below = [...expected].filter(([other, what]) => {
          return what.startsWith('directory') && other.slice(0, Math.max(0, other.lastIndexOf('/'))) === name;
        });
        expect(node.nlink).toBe(node.type === 'directory' ? 2 + below.length : names);
      }
    }),
    { numRuns: 300, seed: 20240711 },
  );
});

describe('hard links', () => {
  test('before their targets, and to links that come later', async () => {
    const index = await merged([
      [
        { name: 'a', type: '1', link: 'b' },
        { name: 'b', type: '1', link: 'dir/c' },
        { name: 'dir/c', data: 'content' },
      ],
    ]);
    const tree = snapshotIndex(index);
    expect(new Set(['a', 'b', 'dir/c'].map((name) => tree.get(name)?.inode)).size).toBe(1);
    expect(tree.get('a')?.nlink).toBe(3);
  });

  test('are to what is there when they come, as for everybody who unpacks', async () => {
    const tree = snapshotIndex(
      await merged([
        [{ name: 'target', data: 'old one' }],
        [
          { name: 'link', type: '1', link: 'target' },
          { name: 'target', data: 'new' },
        ],
      ]),
    );
    expect([tree.get('link')?.size, tree.get('link')?.nlink, tree.get('target')?.size]).toEqual([7, 1, 3]);
  });

  test('to symlinks and devices share these', async () => {
    const tree = snapshotIndex(
      await merged([
        [
          { name: 's', type: '2', link: 'x' },
          { name: 'h', type: '1', link: 's' },
          { name: 'd', type: '3', deviceMajor: 1, deviceMinor: 5 },
          { name: 'e', type: '1', link: '/d' },
        ],
      ]),
    );
    expect([tree.get('h')?.type, tree.get('h')?.nlink, tree.get('e')?.rdevMinor]).toEqual(['symlink', 2, 5]);
  });

  test('keep the content of a name that a later layer replaces or hides', async () => {
    const tree = snapshotIndex(
      await merged([
        [{ name: 'a', data: 'kept' }],
        [{ name: 'b', type: '1', link: 'a' }],
        [{ name: '.wh.a' }],
      ]),
    );
    expect([...tree.keys()]).toEqual(['', 'b']);
    expect([tree.get('b')?.size, tree.get('b')?.nlink]).toEqual([4, 1]);
  });
});

test('directories that nothing describes are 0755, of root, of 1970', async () => {
  const index = await merged([[{ name: 'a/b/c', data: 'x' }]]);
  const directory = index.lookup(1, Buffer.from('a'));
  expect(index.attributes(directory)).toEqual({
    ino: directory,
    mode: 0o040755,
    uid: 0,
    gid: 0,
    size: 4096,
    blocks: 8,
    nlink: 3,
    rdevMajor: 0,
    rdevMinor: 0,
    mtimeSeconds: 0,
    mtimeNanoseconds: 0,
  });
});

test('the notes of old storage drivers do not become files', async () => {
  const tree = snapshotIndex(
    await merged([
      [
        { name: '.wh..wh.plnk/', type: '5' },
        { name: '.wh..wh.aufs' },
        { name: 'a/.wh..wh.orph' },
        { name: 'b' },
      ],
    ]),
  );
  expect([...tree.keys()]).toEqual(['', 'b']);
});

test('a directory takes the place of a lower file even when its entry comes behind its children', async () => {
  const tree = snapshotIndex(
    await merged([
      [{ name: 'x', data: 'file' }],
      [
        { name: 'x/y', data: 'below' },
        { name: 'x/', type: '5', mode: 0o700 },
      ],
    ]),
  );
  expect([tree.get('x')?.type, tree.get('x')?.mode, tree.get('x/y')?.size]).toEqual(['directory', 0o700, 5]);
});
