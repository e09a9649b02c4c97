import { afterEach, beforeEach, describe, expect, test } from 'bun:test';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  removeAbandoned,
  removeTemporaries,
  replaceDurably,
  replaceSync,
  temporaryName,
  writeDurably,
  writeDurablySync,
} from '../../../src/files/index.ts';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'imgcred-files-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

const names = () => readdirSync(directory).sort();

describe.each([
  ['at once', async (path: string, text: string) => writeDurablySync(path, text)],
  ['in the background', writeDurably],
])('a file that is written %s', (_, write) => {
  test('is there as a whole, for its owner alone, and nothing beside it', async () => {
    const path = join(directory, 'file');
    await write(path, 'first');
    await write(path, 'second');
    expect(readFileSync(path, 'utf8')).toBe('second');
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(names()).toEqual(['file']);
  });

  test('leaves nothing where it can’t have its name', async () => {
    await expect(write(join(directory, 'none', 'file'), 'text')).rejects.toMatchObject({ code: 'ENOENT' });
    const taken = join(directory, 'taken');
    mkdirSync(join(taken, 'inside'), { recursive: true });
    await expect(write(taken, 'text')).rejects.toHaveProperty('code');
    expect(names()).toEqual(['taken']);
  });
});

test('a file that is replaced is never a part of either', () => {
  const path = join(directory, 'file');
  writeFileSync(`${path}.new`, 'what a killed process left, longer than the next');
  replaceSync(path, 'first');
  replaceSync(path, 'second');
  expect(readFileSync(path, 'utf8')).toBe('second');
  expect(statSync(path).mode & 0o777).toBe(0o600);
  expect(names()).toEqual(['file']);
});

test('an exclusive write leaves what is there alone', () => {
  const path = join(directory, 'file');
  writeDurablySync(path, 'first', true);
  expect(() => writeDurablySync(path, 'second', true)).toThrow('EEXIST');
  expect(readFileSync(path, 'utf8')).toBe('first');
  expect(names()).toEqual(['file']);
});

test('who writes the file himself and fails leaves the old one', async () => {
  const path = join(directory, 'file');
  await writeDurably(path, 'old');
  const failing = replaceDurably(path, async (temporary) => {
    writeFileSync(temporary, 'half');
    throw new Error('no more');
  });
  await expect(failing).rejects.toThrow('no more');
  expect(readFileSync(path, 'utf8')).toBe('old');
  expect(names()).toEqual(['file']);
});

test('what a crash left of one file is removed, and of no other', () => {
  writeFileSync(join(directory, `key.${temporaryName()}`), 'half');
  const others = ['key', 'key.old', `keys.${temporaryName()}`, temporaryName()];
  for (const name of others) writeFileSync(join(directory, name), '');
  removeTemporaries(join(directory, 'key'));
  expect(names()).toEqual(others.sort());
});

test('what ended processes left is removed, not what a live one is writing', async () => {
  const ended = Bun.spawnSync(['true']).pid;
  const left = temporaryName().replace(/^\d+/, String(ended));
  for (const name of [left, `x.${left}`, `${left}.scratch`]) writeFileSync(join(directory, name), '');
  const kept = [temporaryName(), 'file', 'file.tmp'];
  for (const name of kept) writeFileSync(join(directory, name), '');
  await removeAbandoned(directory);
  expect(names()).toEqual(kept.sort());
});
