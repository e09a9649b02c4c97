import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { readdir, readFile, readlink, realpath } from 'node:fs/promises';
import { output } from './commands.ts';
import { Probe } from './probe.ts';
import { ServedTree } from './served-tree.ts';
import { DRIVERS_AND_SOURCES } from './sources.ts';
import { DEEP_LEVELS, DEEP_NAME, LONG_NAME, LONG_TARGET, MANY, ODD_NAMES } from './tree.ts';

const DT = { FIFO: 1, CHR: 2, DIR: 4, BLK: 6, REG: 8, LNK: 10, SOCK: 12 };

describe.each(DRIVERS_AND_SOURCES)('directories through $title', ({ driver, source }) => {
  let tree: ServedTree;
  let probe: Probe;
  const resources = new AsyncDisposableStack();
  beforeAll(async () => {
    probe = resources.use(await Probe.compile());
    tree = resources.use(await ServedTree.start(driver, { source }));
  });
  afterAll(() => resources.disposeAsync());

  async function entriesOf(directory: string) {
    const lines = (await probe.run('entries', tree.path(directory))).split('\0').slice(0, -1);
    return lines.map((line) => {
      const [ino = '', type = '', ...rest] = line.split(' ');
      return { ino: Number(ino), type: Number(type), name: rest.join(' ') };
    });
  }

  test('each entry has its type', async () => {
    const special = new Map((await entriesOf('special')).map((entry) => [entry.name, entry.type]));
    expect(Object.fromEntries(special)).toEqual({
      '.': DT.DIR,
      '..': DT.DIR,
      null: DT.CHR,
      zero: DT.CHR,
      block: DT.BLK,
      fifo: DT.FIFO,
      ...(source.sockets ? { socket: DT.SOCK } : {}),
    });
    const links = await entriesOf('links');
    expect(links.find((entry) => entry.name === 'first')?.type).toBe(DT.REG);
    expect(links.find((entry) => entry.name === 'relative')?.type).toBe(DT.LNK);
  });

  test('each entry has the inode number that stat gives, "." and ".." too', async () => {
    for (const entry of await entriesOf('links')) {
      const printed = await output(['stat', '-c', '%i', tree.path('links', entry.name)]);
      expect({ name: entry.name, ino: entry.ino }).toEqual({ name: entry.name, ino: Number(printed) });
    }
  });

  test('an empty directory has only "." and ".."', async () => {
    expect((await entriesOf('void')).map((entry) => entry.name)).toEqual(['.', '..']);
  });

  test(`${MANY} entries come each once`, async () => {
    const names = await readdir(tree.path('many'));
    expect(names).toHaveLength(MANY);
    expect(new Set(names).size).toBe(MANY);
    expect(names).toContain(`entry-${MANY - 1}`);
  });

  test('seekdir finds again what telldir remembered', async () => {
    expect((await probe.run('seekdir', tree.path('many'))).trim()).toBe(`${MANY + 2} ${MANY + 2}`);
    expect((await probe.run('seekdir', tree.path('links'))).trim()).toBe('12 12');
  });

  test('concurrent readers of one directory each see all of it', async () => {
    const listings = await Promise.all(Array.from({ length: 16 }, () => readdir(tree.path('many'))));
    expect(listings.map((names) => names.length)).toEqual(Array.from({ length: 16 }, () => MANY));
  });

  test('names are bytes: UTF-8 or not, with any byte but "/" and NUL', async () => {
    const listed = await readdir(tree.bytesPath('names'), { encoding: 'buffer' });
    const names = listed.map((bytes) => bytes.toString('latin1')).sort();
    expect(names).toEqual([LONG_NAME, ...ODD_NAMES].sort());
    for (const odd of ODD_NAMES) {
      expect((await readFile(tree.bytesPath(`names/${odd}`))).toString('latin1')).toBe(odd);
    }
  });

  test('a name of 255 bytes works, one of 256 is ENAMETOOLONG', async () => {
    expect(await readFile(tree.path('names', LONG_NAME), 'utf8')).toBe('long');
    await expect(readFile(tree.path('names', `${LONG_NAME}x`))).rejects.toMatchObject({
      code: 'ENAMETOOLONG',
    });
  });

  test('a path of 4,095 bytes works', async () => {
    // Padding by "./" brings it to the byte: the kernel's limit is about the text, not about the depth.
    const levels = `${DEEP_NAME}/`.repeat(14);
    const path = tree.path('deep');
    const room = 4095 - Buffer.byteLength(`${path}/${levels}.`);
    const padding = './'.repeat(Math.floor(room / 2));
    const full = `${path}/${padding}${levels}${room % 2 === 1 ? '/' : ''}.`;
    expect(Buffer.byteLength(full)).toBe(4095);
    expect(await readdir(full)).toEqual([DEEP_NAME]);
  });

  test('a file deeper than any path can say is reached step by step', async () => {
    const descended = await probe.run('descend', tree.path('deep'), DEEP_NAME);
    expect(descended).toBe(`${DEEP_LEVELS} bottom\n`);
  });

  test('symbolic links give their target byte for byte, up to 4,095 of them', async () => {
    expect(await readlink(tree.path('links/long'))).toBe(LONG_TARGET);
    expect(await readlink(tree.bytesPath('links/bytes'), { encoding: 'buffer' })).toEqual(
      Buffer.from([0xff, 0xfe]),
    );
    expect(await readFile(tree.path('links/up'), 'utf8')).toBe('hello\n');
    expect(await realpath(tree.path('links/directory/third'))).toBe(tree.path('links/elsewhere/third'));
    await expect(readFile(tree.path('links/dangling'))).rejects.toMatchObject({ code: 'ENOENT' });
    await expect(readFile(tree.path('links/loop'))).rejects.toMatchObject({ code: 'ELOOP' });
  });

  test('find walks the whole tree without complaint', async () => {
    const printed = await output(['find', tree.path('many'), tree.path('deep'), '-printf', '%s\n']);
    expect(printed.trim().split('\n')).toHaveLength(MANY + 1 + DEEP_LEVELS + 2);
  }, 120_000);
});
